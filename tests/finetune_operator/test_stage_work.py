"""Trying again, giving up and the limits of a run, as tables."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from finetune_contract.run_status import Phase, PodUse, Reason
from finetune_contract.stage_protocol import ExitCode, ProgressLine, Stage
from finetune_operator.actions import CreateJob, Decision, DeleteJob
from finetune_operator.lifecycle import decide
from finetune_operator.observed import ContainerFacts, JobFacts, Observed, Run
from tests.finetune_operator.samples import (
    DIGEST,
    KEY,
    NOON,
    a_failed_job,
    a_job,
    a_pod,
    a_run,
    a_status,
    after,
    an_attempt,
    at,
    condition,
    ended,
    later,
    seen,
)

GPU: dict[str, Any] = {"train": {"gpu": {"count": 2}}}
TRAINING = {"effectiveBatchSize": 8, "microBatchSize": 4}


def a_training(*attempts: Any, **changes: Any) -> Run:
    """A run whose dataset is built, on GPUs."""
    return a_run(a_status([Stage.DATASET], attempts), resources=GPU, training=TRAINING, **changes)


def a_holding_job(attempt: int = 0, since: float = 0, **changes: Any) -> JobFacts:
    """A Job whose pod trains on its node."""
    container = ContainerFacts("stage", running=True, ready=True, started_at=at(since))
    pod = a_pod(container, scheduled_at=at(since), phase="Running", ready=True)
    return a_job(Stage.TRAIN, attempt, pod, **changes)


def decide_until_done(run: Run, observed: list[Observed], seconds: float) -> list[Decision]:
    decisions = []
    for number, facts in enumerate(observed):
        decisions.append(decide(run, facts, later(number * seconds)))
        run = after(run, decisions[-1])
    return decisions


# memory


def test_each_time_that_gpu_memory_runs_out_the_next_attempt_takes_the_next_rung():
    run = a_training(an_attempt(Stage.TRAIN))
    taken: list[dict[str, object]] = []
    now = 0.0
    for number in range(4):
        message = "spec.training.microBatchSize: too much"
        job = a_failed_job(Stage.TRAIN, ExitCode.CUDA_OUT_OF_MEMORY, number, message)
        failed = decide(run, seen(job), later(now))
        now += 6
        again = decide(after(run, failed), seen(job), later(now))
        run = after(run, again)
        if again.status.phase is Phase.FAILED:
            break
        (action,) = again.actions
        assert isinstance(action, CreateJob)
        assert action.overlay is not None
        assert action.overlay == again.status.attempts[-1].overlay
        taken.append(action.overlay.to_wire())
        assert condition(failed, "Trained").reason == Reason.RETRYING

    assert [(rung["microBatchSize"], rung["gradientCheckpointing"]) for rung in taken] == [
        (2, False),
        (1, False),
        (1, True),
    ]
    assert run.status.attempts[2].changed == "spec.training.microBatchSize: 4 -> 2"
    assert run.status.attempts[-1].failure_class == "CudaOutOfMemory"
    assert run.status.phase is Phase.FAILED
    stalled = condition(Decision(run.status), "Stalled")
    assert stalled.reason == Reason.CUDA_OUT_OF_MEMORY
    assert "no step of spec.policy.outOfMemory is left" in stalled.message


def test_a_rung_stays_taken_when_the_attempt_is_preempted_later():
    run = a_training(
        an_attempt(Stage.TRAIN, 0, Reason.CUDA_OUT_OF_MEMORY), an_attempt(Stage.TRAIN, 1, Reason.PREEMPTED)
    )

    (action,) = decide(run, seen(), later(60)).actions

    assert isinstance(action, CreateJob)
    assert action.overlay is not None
    assert action.overlay.micro_batch_size == 2


def test_a_job_that_was_made_before_the_operator_died_is_taken_up_with_its_rung():
    run = a_training(an_attempt(Stage.TRAIN, 0, Reason.CUDA_OUT_OF_MEMORY))

    decision = decide(run, seen(a_holding_job(1)), later(60))

    overlay = decision.status.attempts[-1].overlay
    assert decision.actions == ()
    assert overlay is not None
    assert overlay.micro_batch_size == 2


@pytest.mark.parametrize(
    ("stage", "message", "policy"),
    [
        (Stage.TRAIN, "spec.resources.train.gpu: the base model does not fit; take a larger GPU", {}),
        (Stage.TRAIN, "spec.training.microBatchSize: x", {"outOfMemory": {"strategy": "Fail"}}),
        (Stage.TRAIN, "spec.training.microBatchSize: x", {"retries": {"outOfMemory": 0}}),
        (Stage.EVALUATE, "a batch does not fit", {}),
    ],
)
def test_memory_that_no_rung_mends_ends_the_run_at_once(stage, message, policy):
    done = [Stage.DATASET, Stage.TRAIN, Stage.PACKAGE][: 1 if stage is Stage.TRAIN else 3]
    run = a_run(a_status(done, [an_attempt(stage)]), resources=GPU, training=TRAINING, policy=policy)

    decision = decide(run, seen(a_failed_job(stage, ExitCode.CUDA_OUT_OF_MEMORY, message=message)), NOON)

    assert decision.status.phase is Phase.FAILED
    assert condition(decision, "Ready").reason == Reason.CUDA_OUT_OF_MEMORY
    assert message in condition(decision, "Ready").message


def test_a_job_that_somebody_deletes_is_made_anew_only_when_its_pod_has_ended():
    run = a_training(an_attempt(Stage.TRAIN))

    leaving = decide(run, seen(a_holding_job(deleting=True)), later(60))
    gone = decide(after(run, leaving), seen(), later(90))
    again = decide(after(run, gone), seen(), later(120))

    assert leaving.actions == ()
    assert "deleted by somebody; a new one follows" in condition(leaving, "Ready").message
    assert gone.status.attempts[-1].result == Reason.INFRASTRUCTURE
    assert [type(action) for action in again.actions] == [CreateJob]


# what a run may take


def test_the_run_stops_before_it_takes_more_than_its_gpu_hours_and_says_so_when_nothing_runs():
    run = a_training(an_attempt(Stage.TRAIN), policy={"budget": {"maxGPUHours": 1}})
    job = a_holding_job()

    in_time = decide(run, seen(job), later(1799))
    stopping = decide(after(run, in_time), seen(job), later(1800))
    still = decide(after(run, stopping), seen(replace(job, deleting=True)), later(1805))
    ended = decide(after(run, still), seen(), later(1810))

    assert in_time.actions == ()
    assert stopping.actions == (DeleteJob(job.name),)
    assert stopping.status.phase is still.status.phase is Phase.TRAINING
    assert stopping.status.attempts[-1].result == Reason.BUDGET_EXCEEDED
    assert still.actions == ()
    assert ended.status.phase is Phase.FAILED
    assert condition(ended, "Stalled").reason == Reason.BUDGET_EXCEEDED
    assert "spec.policy.budget.maxGPUHours: 1 GPU hours are used up" in condition(ended, "Ready").message
    assert ended.status.usage is not None
    assert ended.status.usage.gpu_seconds == 2 * 1800


def test_gpu_hours_of_earlier_attempts_forbid_the_next_one():
    used = [PodUse(name="a", since=at(-9000), seconds=1800)]
    run = a_training(
        an_attempt(Stage.TRAIN, 0, Reason.PREEMPTED, pods=used), policy={"budget": {"maxGPUHours": 1}}
    )

    decision = decide(run, seen(), later(60))

    assert decision.actions == ()
    assert condition(decision, "Ready").reason == Reason.BUDGET_EXCEEDED


def test_the_active_deadline_counts_time_on_nodes_over_all_attempts_and_no_waiting():
    used = [PodUse(name="a", since=at(-9000), seconds=500)]
    attempts = (an_attempt(Stage.TRAIN, 0, Reason.PREEMPTED, pods=used), an_attempt(Stage.TRAIN, 1))
    run = a_training(*attempts, policy={"activeDeadlineSeconds": 600})
    waiting = a_job(Stage.TRAIN, 1, a_pod(None, node="", unschedulable="no node"))
    running = a_holding_job(1, since=5000)

    assert decide(run, seen(waiting), later(5000)).actions == ()
    assert decide(run, seen(running), later(5099)).actions == ()
    assert decide(run, seen(running), later(5100)).actions == (DeleteJob(running.name),)
    assert decide(run, seen(running), later(5100)).status.attempts[-1].result == Reason.DEADLINE_EXCEEDED


def test_a_pod_that_holds_a_gpu_and_does_no_step_is_stopped_and_tried_again():
    run = a_training(an_attempt(Stage.TRAIN), policy={"budget": {"idleGPUStopSeconds": 600}})
    line = ProgressLine(stage=Stage.TRAIN, step=4, total_steps=9, message="training", time=at(10)).to_line()
    job = a_holding_job(log_tail=(line, "a stack of the process"))

    working = decide(run, seen(job), later(10))
    quiet = decide(after(run, working), seen(job), later(600))
    unreadable = decide(after(run, working), seen(replace(job, log_tail=None)), later(9000))
    idle = decide(after(run, quiet), seen(job), later(611))
    again = decide(after(run, idle), seen(), later(630))

    assert quiet.actions == unreadable.actions == ()
    assert idle.actions == (DeleteJob(job.name),)
    assert idle.status.attempts[-1].result == Reason.GPU_IDLE
    assert "no new step for 10m00s (training)" in idle.status.attempts[-1].message
    assert idle.status.attempts[-1].last_log_lines == ["a stack of the process"]
    assert again.actions == (CreateJob(Stage.TRAIN, 1, KEY, DIGEST),)


@pytest.mark.parametrize("changes", [{"policy": {"budget": {"idleGPUStopSeconds": 0}}}, {"resources": {}}])
def test_a_pod_without_gpu_or_limit_may_be_quiet(changes):
    run = a_run(a_status([Stage.DATASET], [an_attempt(Stage.TRAIN)]), **({"resources": GPU} | changes))

    assert decide(run, seen(a_holding_job(log_tail=())), later(90_000)).actions == ()


def test_a_wait_in_the_queue_is_not_taken_for_an_idle_gpu():
    run = a_training(an_attempt(Stage.TRAIN), policy={"budget": {"idleGPUStopSeconds": 600}})
    waiting = decide(run, seen(a_job(Stage.TRAIN, suspended=True)), later(0))

    decision = decide(after(run, waiting), seen(a_holding_job(since=5000, log_tail=())), later(5001))

    assert decision.actions == ()
    assert decision.status.attempts[-1].queue_seconds == 5000


def test_pods_that_are_taken_away_too_often_end_the_run_though_the_job_would_go_on():
    used = [PodUse(name=f"p{n}", since=at(n), seconds=1, taken_by="Evicted") for n in range(3)]
    run = a_training(an_attempt(Stage.TRAIN, pods=used), policy={"retries": {"eviction": 2, "preemption": 0}})
    job = a_holding_job()

    stopping = decide(run, seen(job), later(60))
    ended = decide(after(run, stopping), seen(), later(70))

    assert stopping.actions == (DeleteJob(job.name),)
    assert condition(ended, "Ready").reason == Reason.EVICTED
    assert "spec.policy.retries.eviction is 2" in condition(ended, "Ready").message


def test_a_run_is_not_called_failed_while_a_pod_of_it_may_run():
    run = a_training(an_attempt(Stage.TRAIN), policy={"queueDeadlineSeconds": 60})
    job = a_job(Stage.TRAIN, pod=a_pod(None, node="", phase="Pending", unschedulable="no GPU"))

    stopping, still, ended = decide_until_done(
        run, [seen(job), seen(replace(job, deleting=True)), seen()], 61
    )[0:3]
    first = decide(run, seen(job), later(61))

    assert stopping.actions == ()
    assert first.actions == (DeleteJob(job.name),)
    assert first.status.phase is Phase.TRAINING
    assert still.status.phase is Phase.TRAINING
    assert ended.status.phase is Phase.FAILED
    assert condition(ended, "Ready").reason == Reason.UNSCHEDULABLE


def test_what_a_run_cost_is_in_its_status():
    run = a_training(an_attempt(Stage.TRAIN))

    decision = decide(run, seen(a_holding_job(since=20)), later(200))

    usage = decision.status.usage
    assert usage is not None
    assert (usage.gpu_seconds, usage.queue_seconds, usage.cost) == (360, 20, "")


def test_a_result_that_this_version_does_not_know_ends_the_run_and_is_not_tried_again():
    decision = decide(a_training(an_attempt(Stage.TRAIN, 0, "MeltedDown")), seen(), NOON)

    assert decision.actions == ()
    assert condition(decision, "Ready").reason == Reason.INTERNAL_ERROR


# how soon it is looked at again


NO_PLACE = a_pod(None, node="", phase="Pending", unschedulable="0/9 nodes: insufficient nvidia.com/gpu")
PULLING = ContainerFacts("stage", waiting_reason="ErrImagePull")


@pytest.mark.parametrize(
    ("seen_seconds", "job", "longest", "shortest"),
    [
        (1, None, 3, 0),
        (1, a_job(Stage.TRAIN), 15, 5),
        (16, a_job(Stage.TRAIN), 60, 60),
        (1, a_job(Stage.TRAIN, suspended=True), 60, 60),
        (9000, a_job(Stage.TRAIN, suspended=True, queue_words="Pending: 1 more needed"), 60, 60),
        (20, a_job(Stage.TRAIN, pod=a_pod(ended(32)), suspended=True), 60, 60),
        (20, a_job(Stage.TRAIN, pod=NO_PLACE), 60, 60),
        (20, a_job(Stage.TRAIN, pod=a_pod(PULLING)), 15, 5),
        (20, a_holding_job(log_tail=()), 5, 5),
    ],
    ids=[
        "a Job that is not in sight is soon taken for gone",
        "a Job without a pod soon has a reason to tell",
        "a Job whose pods a quota refuses waits for its event",
        "a Job that its queue has not admitted waits for its event",
        "however long the queue is",
        "a Job whose place the queue took back waits for its event",
        "a pod without a node waits for its event",
        "a pod that holds its node may have to be stopped",
        "a running pod tells of its progress in the log alone",
    ],
)
def test_an_attempt_is_looked_at_as_often_as_time_may_change_it(seen_seconds, job, longest, shortest):
    run = a_training(an_attempt(Stage.TRAIN, started_at=at(0)))

    decision = decide(run, seen(*([job] if job else [])), later(seen_seconds))

    assert decision.actions == ()
    assert decision.requeue_after is not None
    assert shortest <= decision.requeue_after <= longest


@pytest.mark.parametrize("change", [{"suspend": True}, {"cancel": True}])
def test_a_job_that_was_told_to_go_is_waited_for_by_its_event(change):
    run = a_training(an_attempt(Stage.TRAIN), **change)

    told = decide(run, seen(a_holding_job()), later(60))
    going = decide(after(run, told), seen(a_holding_job(deleting=True)), later(63))

    assert told.requeue_after == 3
    assert going.actions == ()
    assert going.requeue_after == 15


# what a stage says of itself


@pytest.mark.parametrize(
    ("said", "eta_seconds", "step"),
    [
        ({"eta_seconds": 90.4, "step": 4}, 90, 4),
        ({"eta_seconds": float("inf"), "step": 4}, 0, 4),
        ({"eta_seconds": float("nan"), "step": 4}, 0, 4),
        ({"eta_seconds": -3.0, "step": 4}, 0, 4),
        ({"eta_seconds": 1e30, "step": 4}, 0, 4),
        ({"step": 10**400, "total_steps": 3}, 0, 0),
        ({"step": 4, "total_steps": 10**30}, 0, 0),
    ],
)
def test_numbers_that_no_status_can_hold_do_not_stop_a_pass(said, eta_seconds, step):
    line = json.dumps({"finetune": "progress", "stage": "train"} | {to_camel(k): v for k, v in said.items()})
    run = a_training(an_attempt(Stage.TRAIN))

    progress = decide(run, seen(a_holding_job(log_tail=(line,))), later(10)).status.progress

    assert progress is not None
    assert (progress.eta_seconds, progress.step) == (eta_seconds, step)


@pytest.mark.parametrize("said", ["", "soon", "x" * 2000])
def test_a_line_without_a_time_that_can_be_read_is_as_old_as_its_first_sight(said):
    line = ProgressLine(stage=Stage.TRAIN, step=4, total_steps=9, time=said).to_line()
    run = a_training(an_attempt(Stage.TRAIN))

    first = decide(run, seen(a_holding_job(log_tail=(line,))), later(10))
    again = decide(after(run, first), seen(a_holding_job(log_tail=(line,))), later(15))
    silent = decide(after(run, again), seen(a_holding_job(log_tail=(line,))), later(131))

    assert first.status.progress is not None
    assert silent.status.progress is not None
    assert first.status.progress.updated_at == at(10)
    assert not first.status.progress.stale
    assert silent.status.progress.stale
