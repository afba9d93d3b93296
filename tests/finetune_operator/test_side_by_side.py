"""A Job whose pods share a sweep: what the run says while some of them wait, work or have ended, and what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_contract.run_status import Attempt, Reason
from finetune_contract.stage_protocol import ProgressLine, Stage, StageReport, StepShare, TrainingFacts
from finetune_operator import side_by_side
from finetune_operator.actions import DeleteJob
from finetune_operator.failures import Outcome, judge
from finetune_operator.lifecycle import decide
from finetune_operator.observed import ContainerFacts, JobFacts, PodFacts, Run, Termination
from tests.finetune_operator.samples import a_job, a_run, a_status, after, an_attempt, at, ended, later, seen

NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
SWEEP = {
    "training": {"sweep": {"rank": [8, 16], "learningRate": [0.0001, 0.0002], "parallelism": 3}},
    "resources": {"train": {"gpu": {"count": 1}}},
}


def a_sweep(*attempts: Attempt, **changes: object) -> Run:
    return a_run(a_status([Stage.DATASET], attempts), **(SWEEP | changes))


def waits(index: int) -> PodFacts:
    return PodFacts(f"pod-{index}", at(0), phase="Pending", unschedulable=NO_GPU, index=index)


def works(index: int, since: float = 0) -> PodFacts:
    container = ContainerFacts("stage", running=True, ready=True, started_at=at(since))
    return PodFacts(
        f"pod-{index}",
        at(since),
        node="node-1",
        scheduled_at=at(since),
        phase="Running",
        ready=True,
        containers=(container,),
        index=index,
    )


def is_over(
    index: int, until: float = 50, code: int = 0, message: str = "", disruption: str = ""
) -> PodFacts:
    container = replace(ended(code, message), terminated=Termination(code, "", message, at(until)))
    phase = "Failed" if code else "Succeeded"
    return replace(works(index), phase=phase, ready=False, containers=(container,), disruption=disruption)


def is_made(index: int, reason: str = "ContainerCreating") -> PodFacts:
    return replace(works(index), ready=False, containers=(ContainerFacts("stage", waiting_reason=reason),))


def a_sweep_job(*pods: PodFacts, **changes: object) -> JobFacts:
    return replace(a_job(Stage.TRAIN), pods=pods, **changes)


def a_line(step: int, total: int, from_step: int = 0, of_all: int = 40, **facts: object) -> str:
    share = StepShare(from_step=from_step, steps_of_all=of_all)
    return ProgressLine(
        stage=Stage.TRAIN, step=step, total_steps=total, loss=1.0, time=at(10), share=share, **facts
    ).to_line()


TAKEN = "PreemptionByScheduler: for another"


@pytest.mark.parametrize(
    ("pods", "outcome", "reason", "words"),
    [
        ([waits(0), waits(1), waits(2)], Outcome.WAITING, Reason.UNSCHEDULABLE, NO_GPU),
        ([waits(0), works(1), waits(2)], Outcome.RUNNING, Reason.RUNNING, ""),
        ([works(2), works(1), works(0)], Outcome.RUNNING, Reason.RUNNING, ""),
        ([is_over(0), works(1), waits(2)], Outcome.RUNNING, Reason.RUNNING, ""),
        (
            [is_over(0), is_over(1), waits(2)],
            Outcome.WAITING,
            Reason.WAITING,
            "2 of 3 pods are done, the others wait",
        ),
        ([is_over(0), is_made(1), waits(2)], Outcome.WAITING, Reason.WAITING, "the pod is being made"),
        ([is_made(0, "ErrImagePull"), works(1)], Outcome.RUNNING, Reason.RUNNING, ""),
        ([is_over(0, code=32, disruption=TAKEN), works(1)], Outcome.RUNNING, Reason.RUNNING, ""),
        (
            [is_over(0, code=32, disruption=TAKEN), is_over(1)],
            Outcome.WAITING,
            Reason.PREEMPTED,
            "a new one follows",
        ),
        ([replace(works(0), ready=False), works(1)], Outcome.RUNNING, Reason.RUNNING, ""),
        ([replace(works(0), ready=False), waits(1)], Outcome.RUNNING, Reason.NODE_LOST, "does not answer"),
        ([is_over(0), is_over(1), is_over(2)], Outcome.RUNNING, Reason.RUNNING, ""),
    ],
)
def test_a_stage_runs_while_one_of_its_pods_does_and_is_not_unschedulable_once_one_is_done(
    pods: list[PodFacts], outcome: Outcome, reason: Reason, words: str
):
    judgement = judge(a_sweep_job(*pods), an_attempt(Stage.TRAIN), a_sweep().spec, later(100))

    assert (judgement.outcome, judgement.reason) == (outcome, reason)
    assert words in judgement.message


def test_of_pods_that_need_each_other_one_that_waits_still_speaks_for_all():
    nodes = a_run(resources={"train": {"gpu": {"nodes": 2}}}).spec

    assert judge(a_sweep_job(waits(1), works(0)), None, nodes, later(9)).reason is Reason.UNSCHEDULABLE


def test_the_wait_for_a_node_counts_from_the_end_of_the_last_pod_that_had_one():
    run = a_sweep(an_attempt(Stage.TRAIN), policy={"queueDeadlineSeconds": 600})
    job = a_sweep_job(is_over(0, until=5000), waits(1))

    patient = decide(run, seen(job), later(5600))
    late = decide(after(run, patient), seen(job), later(5601))

    assert patient.actions == ()
    assert late.actions == (DeleteJob(job.name),)


def test_what_the_stage_says_at_its_end_are_the_words_of_the_pod_that_published():
    facts = TrainingFacts(steps=40, final_loss=0.4)
    best = StageReport(stage=Stage.TRAIN, message="best of 4 trials", training=facts).to_message()
    early = StageReport(stage=Stage.TRAIN, message="others train on").to_message()
    job = a_sweep_job(
        is_over(1, message=best), is_over(2, message=early), is_over(0, message=early), complete=True
    )

    known = an_attempt(Stage.TRAIN, from_step=22, to_step=40)
    decision = decide(a_sweep(known), seen(job), later(100))

    train = next(attempt for attempt in decision.status.attempts if attempt.stage is Stage.TRAIN)
    assert (train.result, train.message) == ("Succeeded", "best of 4 trials")
    assert (train.from_step, train.to_step) == (22, 40)


def test_a_pod_that_fails_by_itself_ends_the_attempt_for_its_reason_and_another_attempt_follows():
    report = StageReport(stage=Stage.TRAIN, exit_code=30, message="out of memory").to_message()
    stopped = is_over(1, code=32, message=StageReport(stage=Stage.TRAIN, exit_code=32).to_message())
    job = a_sweep_job(
        is_over(0), stopped, is_over(2, code=30, message=report), failed_reason="PodFailurePolicy"
    )
    run = a_sweep(an_attempt(Stage.TRAIN))

    failed = decide(run, seen(job), later(100))
    again = decide(after(run, failed), seen(job), later(200))

    (attempt, second) = [one for one in again.status.attempts if one.stage is Stage.TRAIN]
    assert (attempt.result, attempt.exit_code) == (Reason.CUDA_OUT_OF_MEMORY, 30)
    assert second.result == "Running"


def test_the_seconds_of_every_pod_are_paid_for_however_many_run_at_once():
    pods = [works(index) for index in range(16)]
    spec = {**SWEEP, "training": {"sweep": {"rank": list(range(1, 17)), "parallelism": 16}}}
    run = a_sweep(an_attempt(Stage.TRAIN), **spec)

    early = decide(run, seen(a_sweep_job(*pods)), later(60))
    late = decide(after(run, early), seen(a_sweep_job(*pods)), later(600))

    assert early.status.attempts[-1].gpu_seconds == 16 * 60
    assert late.status.attempts[-1].gpu_seconds == 16 * 600


def test_gpu_hours_of_all_pods_together_end_the_run():
    run = a_sweep(an_attempt(Stage.TRAIN), policy={"budget": {"maxGPUHours": 0.5}})
    job = a_sweep_job(works(0), works(1), works(2))

    assert decide(run, seen(job), later(599)).actions == ()
    assert decide(run, seen(job), later(600)).actions == (DeleteJob(job.name),)


def test_progress_is_that_of_all_pods_with_the_words_of_those_at_work():
    pods = (works(2), works(1), is_over(0))
    tails = (
        ("loads", a_line(4, 10, 2, tokens_per_second=100, eta_seconds=60, message="trial 3 of 4: rank 8")),
        (a_line(1, 10, tokens_per_second=50, eta_seconds=900, message="trial 2 of 4: rank 16"), "a warning"),
        (a_line(20, 20, 20), "done"),
    )

    log = side_by_side.log_of_all(pods, tails, 3)

    assert log is not None
    assert log[:-1] == ("done",)
    line = ProgressLine.parse(log[-1])
    assert line is not None
    assert (line.step, line.total_steps, line.tokens_per_second) == (25, 40, 150)
    assert line.share == StepShare(from_step=22, steps_of_all=40)
    assert line.message == "2 of 3 pods train; trial 2 of 4: rank 16; trial 3 of 4: rank 8"
    assert line.eta_seconds == 900


def test_the_time_left_counts_the_steps_that_no_pod_has_begun():
    """Ten steps in 100 seconds by the one pod that has a GPU, and 30 steps of pods that wait."""
    log = side_by_side.log_of_all((works(0),), ((a_line(0, 10, eta_seconds=100),),), 4)

    line = ProgressLine.parse((log or ("",))[-1])
    assert line is not None
    assert line.eta_seconds == 400


def test_a_pod_that_replaces_another_is_heard_once_it_trains():
    old = is_over(0, code=32, disruption=TAKEN)
    new = replace(works(0, since=60), name="pod-0-again")
    fetching = ProgressLine(stage=Stage.TRAIN, step=5, total_steps=512, message="fetching (MiB)").to_line()
    said = [
        side_by_side.log_of_all((old, new), ((a_line(7, 10),), (last,)), 2)
        for last in (fetching, a_line(6, 10, 6))
    ]

    steps = [line.step for log in said if (line := ProgressLine.parse((log or ("",))[-1]))]
    assert steps == [7, 6]


def test_logs_that_nobody_can_read_are_no_log_and_one_without_steps_is_told_as_it_is():
    assert side_by_side.log_of_all((works(1), works(0)), (None, None), 2) is None
    assert side_by_side.log_of_all((works(1), works(0)), (("loads",), None), 2) == ("loads",)


def test_an_attempt_tells_from_which_step_to_which_all_pods_went():
    log = side_by_side.log_of_all((works(1), works(0)), ((a_line(8, 20, 6),), (a_line(9, 20, 5),)), 2)
    job = a_sweep_job(works(1), works(0), log_tail=log)

    decision = decide(a_sweep(an_attempt(Stage.TRAIN)), seen(job), later(20))

    attempt = decision.status.attempts[-1]
    assert (attempt.from_step, attempt.to_step) == (11, 17)
    assert decision.status.progress is not None
    assert (decision.status.progress.step, decision.status.progress.total_steps) == (17, 40)


def test_gpus_are_idle_when_no_pod_does_a_step_for_as_long_as_the_newest_of_them_has_run():
    run = a_sweep(an_attempt(Stage.TRAIN), policy={"budget": {"idleGPUStopSeconds": 600}})
    job = a_sweep_job(works(1), works(2, since=300), is_over(0), log_tail=(a_line(3, 20),))

    moved = decide(run, seen(job), later(10))
    quiet = decide(after(run, moved), seen(job), later(899))
    idle = decide(after(run, quiet), seen(job), later(901))

    assert quiet.actions == ()
    assert idle.actions == (DeleteJob(job.name),)


@pytest.mark.parametrize(
    ("stage", "sweep", "pods"),
    [
        (Stage.TRAIN, {"rank": [8, 16], "parallelism": 2}, 2),
        (Stage.TRAIN, {"rank": [8, 16], "parallelism": 5}, 2),
        (Stage.TRAIN, {"rank": [8, 16]}, 1),
        (Stage.EVALUATE, {"rank": [8, 16], "parallelism": 2}, 1),
    ],
)
def test_only_a_training_is_shared_and_by_no_more_pods_than_there_are_trials(
    stage: Stage, sweep: object, pods: int
):
    assert side_by_side.shares(a_run(training={"sweep": sweep}).spec, stage) == pods
