"""The state machine as tables: what is observed, and what is decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_contract.run_status import (
    ConditionType,
    DatasetStatus,
    ForgottenAttempts,
    Phase,
    Progress,
    Reason,
    RolloutPhase,
    RolloutStatus,
)
from finetune_contract.stage_protocol import (
    DatasetFacts,
    EvaluationFacts,
    ExitCode,
    ModelFacts,
    ProgressLine,
    Stage,
)
from finetune_operator.actions import CreateJob, DeleteJob
from finetune_operator.conditions import false, merged
from finetune_operator.lifecycle import children_tell_all, decide, only_notes, refused
from finetune_operator.observed import ContainerFacts, Observed, Refusal
from finetune_operator.outlook import Mood
from finetune_operator.status_writing import kstatus
from tests.finetune_operator.samples import (
    ALL_STAGES,
    DIGEST,
    KEY,
    MANIFEST,
    NEW_MODEL,
    NOON,
    OLD_MODEL,
    URI,
    a_deployment,
    a_failed_job,
    a_job,
    a_pod,
    a_report,
    a_rollout,
    a_run,
    a_status,
    a_succeeded_job,
    after,
    an_attempt,
    at,
    condition,
    ended,
    later,
    seen,
)

ROLLOUT = a_rollout()


def test_a_new_run_starts_its_dataset_and_says_so():
    decision = decide(a_run(), seen(), NOON)

    assert decision.actions == (CreateJob(Stage.DATASET, 0),)
    assert decision.status.phase is Phase.BUILDING_DATASET
    assert decision.status.attempts[0].job == "blog-49df072f-dataset-0"
    assert condition(decision, "Reconciling").status == "True"
    assert condition(decision, "Ready").status == "False"
    assert {found.observed_generation for found in decision.status.conditions} == {1}


@pytest.mark.parametrize(
    ("observed", "reason", "words"),
    [
        (
            Observed(deployments=("blog-web", "shop")),
            Reason.TARGET_NOT_FOUND,
            ["spec.rollout.target.deployment.name", '"chat"', "blog-web, shop", "create it"],
        ),
        (Observed(), Reason.TARGET_NOT_FOUND, ["there is no Deployment at all"]),
        (
            seen(target=replace(a_deployment(), init_containers=())),
            Reason.CONTAINER_NOT_FOUND,
            ["spec.rollout.target.deployment.fetchContainer", '"model-fetch"', "none there"],
        ),
        (
            seen(target=replace(a_deployment(), containers=a_deployment().containers[:1])),
            Reason.CONTAINER_NOT_FOUND,
            ["serverContainer", '"model-server"', "web there"],
        ),
        (
            seen(refusal=Refusal("409", "argocd-controller", ".env[MODEL_URI].value")),
            Reason.FIELD_CONFLICT,
            ["argocd-controller", ".env[MODEL_URI].value"],
        ),
    ],
)
def test_a_target_that_cannot_be_rolled_to_stops_the_run_before_any_job(observed, reason, words):
    decision = decide(a_run(), observed, NOON)

    assert decision.actions == ()
    assert decision.status.attempts == []
    assert condition(decision, "Stalled").status == "True"
    assert condition(decision, "Ready").reason == reason
    assert all(word in condition(decision, "Stalled").message for word in words)
    assert decision.requeue_after is not None


def test_a_run_goes_on_when_its_target_appears():
    blocked = after(a_run(), decide(a_run(), Observed(), NOON))

    decision = decide(blocked, seen(), later(30))

    assert decision.actions == (CreateJob(Stage.DATASET, 0),)
    assert condition(decision, "Stalled").status == "False"
    assert condition(decision, "RolledOut").reason == Reason.WAITING


def test_a_run_without_rollout_never_asks_for_a_target():
    decision = decide(a_run(rollout={"mode": "None"}), Observed(), NOON)

    assert decision.actions == (CreateJob(Stage.DATASET, 0),)


@pytest.mark.parametrize(
    ("done", "stage"),
    [
        ((), Stage.DATASET),
        ((Stage.DATASET,), Stage.TRAIN),
        ((Stage.DATASET, Stage.TRAIN), Stage.PACKAGE),
        ((Stage.DATASET, Stage.TRAIN, Stage.PACKAGE), Stage.EVALUATE),
    ],
)
def test_the_stages_follow_each_other(done, stage):
    decision = decide(a_run(a_status(done)), seen(), NOON)

    expected = CreateJob(stage, 0) if stage is Stage.DATASET else CreateJob(stage, 0, KEY, DIGEST)
    assert decision.actions == (expected,)


def test_the_next_stage_starts_in_the_pass_that_sees_the_last_one_succeed():
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))

    decision = decide(run, seen(a_succeeded_job(Stage.DATASET)), NOON)

    assert decision.actions == (CreateJob(Stage.TRAIN, 0, KEY, DIGEST),)
    assert decision.status.dataset is not None
    assert decision.status.dataset.training_examples == 800
    assert decision.status.dataset.transfer_examples == 20
    assert condition(decision, "DatasetReady").status == "True"


def test_an_adopted_model_skips_training_and_goes_straight_to_the_rollout():
    report = a_report(
        Stage.DATASET,
        dataset=DatasetFacts(
            digest=DIGEST,
            run_key=KEY,
            documents=44,
            training_examples=800,
            evaluation_examples=80,
            adopted=True,
        ),
        model=ModelFacts(uri=URI, manifest_sha256=MANIFEST, size_bytes=1),
        evaluation=EvaluationFacts(passed=True),
    )
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))

    decision = decide(run, seen(a_succeeded_job(Stage.DATASET, report=report)), NOON)

    assert decision.actions == ()
    assert decision.status.adopted
    assert decision.status.phase is Phase.ROLLING_OUT
    assert condition(decision, "Trained").reason == Reason.ADOPTED
    assert condition(decision, "Packaged").reason == Reason.ADOPTED


def test_the_same_run_in_a_fresh_cluster_ends_without_a_gpu_second():
    adopted = a_report(Stage.DATASET).dataset
    assert adopted is not None
    report = a_report(
        Stage.DATASET,
        dataset=adopted.model_copy(update={"adopted": True}),
        model=ModelFacts(uri=URI, manifest_sha256=MANIFEST, size_bytes=1),
        evaluation=EvaluationFacts(passed=True),
    )
    fresh = a_run(rollout={"mode": "None"}, resources={"train": {"gpu": {"count": 8}}})

    first = decide(fresh, Observed(), NOON)
    last = decide(after(fresh, first), Observed((a_succeeded_job(Stage.DATASET, report=report),)), later(60))

    assert first.actions == (CreateJob(Stage.DATASET, 0),)
    assert last.actions == ()
    assert last.status.phase is Phase.SUCCEEDED
    assert last.status.usage is not None
    assert last.status.usage.gpu_seconds == 0


def test_a_report_of_adoption_without_the_model_is_an_error_and_trains_nothing():
    report = a_report(
        Stage.DATASET,
        dataset=DatasetFacts(
            digest=DIGEST, run_key=KEY, documents=1, training_examples=1, evaluation_examples=1, adopted=True
        ),
    )
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))

    decision = decide(run, seen(a_succeeded_job(Stage.DATASET, report=report)), NOON)

    assert decision.status.phase is Phase.FAILED
    assert condition(decision, "Ready").reason == Reason.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ExitCode.INVALID_RUN, Reason.INVALID_SPEC),
        (ExitCode.DATA_REJECTED, Reason.DATA_REJECTED),
        (ExitCode.SOURCE_REJECTED, Reason.SOURCE_REJECTED),
        (ExitCode.STORE_REJECTED, Reason.STORE_REJECTED),
        (ExitCode.BASE_MODEL_REJECTED, Reason.BASE_MODEL_REJECTED),
        (ExitCode.DIVERGED, Reason.DIVERGED),
        (ExitCode.CUDA_OUT_OF_MEMORY, Reason.CUDA_OUT_OF_MEMORY),
        (ExitCode.INTERNAL_ERROR, Reason.INTERNAL_ERROR),
    ],
)
def test_bad_input_is_never_tried_again(code, reason):
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))

    decision = decide(run, seen(a_failed_job(Stage.DATASET, code, message="place: fact; remedy")), NOON)

    assert decision.actions == ()
    assert decision.status.phase is Phase.FAILED
    assert decision.status.completion_time == at(0)
    assert condition(decision, "Ready").reason == reason
    assert condition(decision, "Stalled").status == "True"
    assert condition(decision, "DatasetReady").status == "False"
    assert "place: fact; remedy" in condition(decision, "Ready").message
    assert decision.status.attempts[0].exit_code == code


def test_a_server_that_does_not_answer_is_tried_again_after_a_pause():
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))
    job = a_failed_job(Stage.DATASET, ExitCode.SOURCE_UNAVAILABLE)

    first = decide(run, seen(job), NOON)
    too_early = decide(after(run, first), seen(job), later(9))
    in_time = decide(after(run, first), seen(job), later(10))

    assert first.actions == too_early.actions == ()
    assert condition(first, "DatasetReady").reason == Reason.RETRYING
    assert first.requeue_after == 10
    assert in_time.actions == (CreateJob(Stage.DATASET, 1),)


def test_the_pause_doubles_and_the_budget_ends():
    results = [an_attempt(Stage.DATASET, n, Reason.SOURCE_UNAVAILABLE, message="no answer") for n in range(4)]

    third = decide(a_run(a_status(attempts=results[:3])), seen(), later(39))
    fourth = decide(a_run(a_status(attempts=results)), seen(), later(1000))

    assert third.actions == ()
    assert third.requeue_after == 1
    assert fourth.status.phase is Phase.FAILED
    assert "spec.policy.retries.infrastructure is 3" in condition(fourth, "Ready").message


def test_preempted_attempts_do_not_eat_the_infrastructure_budget():
    preempted = [an_attempt(Stage.TRAIN, n, Reason.PREEMPTED) for n in range(5)]
    run = a_run(a_status([Stage.DATASET], preempted))

    decision = decide(run, seen(), later(10))

    assert decision.actions == (CreateJob(Stage.TRAIN, 5, KEY, DIGEST),)


def test_preemptions_that_fell_off_the_list_still_count():
    kept = [an_attempt(Stage.TRAIN, n, Reason.PREEMPTED) for n in range(12, 21)]
    fell_off = [ForgottenAttempts(stage=Stage.TRAIN, result=Reason.PREEMPTED, count=12)]
    run = a_run(a_status([Stage.DATASET], kept, forgotten=fell_off))

    decision = decide(run, seen(), later(10))

    assert decision.status.phase is Phase.FAILED
    assert condition(decision, "Ready").reason == Reason.PREEMPTED


def test_a_gpu_that_is_not_free_is_waited_for_in_the_schedulers_words():
    run = a_run(a_status([Stage.DATASET], [an_attempt(Stage.TRAIN)]))
    pod = a_pod(None, unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")

    decision = decide(run, seen(a_job(Stage.TRAIN, pod=pod)), later(3600))

    assert decision.actions == ()
    assert condition(decision, "Reconciling").reason == Reason.UNSCHEDULABLE
    assert "Insufficient nvidia.com/gpu" in condition(decision, "Trained").message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            'secret "wordpress" not found',
            'spec.dataset.sources[0].wordpress.credentialsSecretRef: Secret "wordpress" does not exist; '
            "create it with the keys password, username",
        ),
        (
            "couldn't find key apiKey in Secret demo/weaviate",
            'spec.dataset.knowledgeBase.weaviate.apiKeySecretRef: Secret "weaviate" has no key "apiKey"; add it',
        ),
    ],
)
def test_a_missing_secret_names_the_field_that_asks_for_it_and_recovers(words, expected):
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))
    container = ContainerFacts("stage", waiting_reason="CreateContainerConfigError", waiting_message=words)

    blocked = decide(run, seen(a_job(Stage.DATASET, pod=a_pod(container))), NOON)
    recovered = decide(after(run, blocked), seen(a_job(Stage.DATASET, pod=a_pod())), later(60))

    assert condition(blocked, "Stalled").reason == Reason.SECRET_NOT_FOUND
    assert expected in condition(blocked, "Stalled").message
    assert condition(recovered, "Stalled").status == "False"
    assert condition(recovered, "DatasetReady").reason == Reason.RUNNING


def test_an_image_that_cannot_be_pulled_costs_an_attempt_after_a_while():
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))
    container = ContainerFacts("stage", waiting_reason="ImagePullBackOff", waiting_message="no such host")
    job = a_job(Stage.DATASET, pod=a_pod(container))

    early = decide(run, seen(job), later(60))
    late = decide(run, seen(job), later(301))

    assert early.actions == ()
    assert condition(early, "Reconciling").reason == Reason.IMAGE_PULL_FAILED
    assert late.actions == (DeleteJob(job.name),)
    assert late.status.attempts[0].result == Reason.IMAGE_PULL_FAILED


def test_progress_is_the_last_line_that_the_stage_said():
    run = a_run(a_status([Stage.DATASET], [an_attempt(Stage.TRAIN)]))
    lines = tuple(
        ProgressLine(
            stage=Stage.TRAIN, step=step, total_steps=40, loss=2.5 / step, eta_seconds=250, time=at(step)
        ).to_line()
        for step in (9, 10)
    )
    job = a_job(Stage.TRAIN, pod=a_pod(), log_tail=(*lines, "some other line"))

    decision = decide(run, seen(job), later(12))
    silent = decide(after(run, decision), seen(job), later(200))
    unreadable = decide(after(run, decision), seen(replace(job, log_tail=None)), later(15))

    progress = decision.status.progress
    assert progress is not None
    assert (progress.step, progress.percent, progress.loss, progress.eta) == (10, 25, "0.2500", "4m10s")
    assert not progress.stale
    assert silent.status.progress is not None
    assert silent.status.progress.stale
    assert unreadable.status.progress == progress.model_copy(update={"stale": True, "eta": "4m10s (stale)"})


def test_exit_code_and_message_are_kept_when_the_pod_is_gone_before_the_job_says_failed():
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))
    message = a_failed_job(Stage.DATASET, 12, message="401 from WordPress").pods

    first = decide(run, seen(a_job(Stage.DATASET, pod=message[0])), NOON)
    second = decide(
        after(run, first), seen(a_job(Stage.DATASET, failed_reason="BackoffLimitExceeded")), later(2)
    )

    assert first.status.attempts[0].result == "Running"
    assert condition(second, "Ready").reason == Reason.SOURCE_REJECTED
    assert "401 from WordPress" in second.status.attempts[0].message


def test_the_facts_of_a_report_outlive_its_pod():
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))
    pod = a_pod(ended(0, a_report(Stage.DATASET).to_message()))

    first = decide(run, seen(a_job(Stage.DATASET, pod=pod)), NOON)
    second = decide(after(run, first), seen(a_job(Stage.DATASET, complete=True)), later(2))

    assert first.actions == ()
    assert second.actions == (CreateJob(Stage.TRAIN, 0, KEY, DIGEST),)


def test_a_job_that_was_just_made_may_be_out_of_sight_for_a_moment():
    attempt = an_attempt(Stage.TRAIN, started_at=at(0))
    run = a_run(a_status([Stage.DATASET], [attempt]))

    soon = decide(run, seen(), later(8))
    late = decide(run, seen(), later(11))

    assert soon.actions == ()
    assert soon.status.attempts[-1].result == "Running"
    assert late.status.attempts[-1].result == Reason.INFRASTRUCTURE
    assert late.actions == (DeleteJob(attempt.job),)  # should it only be out of sight


def test_a_job_that_the_status_does_not_know_is_taken_up():
    run = a_run(a_status())

    decision = decide(run, seen(a_job(Stage.DATASET, pod=a_pod())), NOON)

    assert decision.actions == ()
    assert [attempt.number for attempt in decision.status.attempts] == [0]
    assert decision.status.phase is Phase.BUILDING_DATASET


def test_suspending_stops_the_job_and_resuming_starts_the_next_attempt_for_free():
    status = a_status([Stage.DATASET], [an_attempt(Stage.TRAIN)])
    job = a_job(Stage.TRAIN, pod=a_pod())

    stopping = decide(a_run(status, suspend=True), seen(job), NOON)
    still = decide(a_run(stopping.status, suspend=True), seen(replace(job, deleting=True)), later(3))
    suspended = decide(a_run(still.status, suspend=True), seen(), later(6))
    too_early = decide(a_run(still.status), seen(replace(job, deleting=True)), later(7))
    resumed = decide(a_run(suspended.status), seen(), later(9))

    assert stopping.actions == (DeleteJob(job.name),)
    assert still.actions == ()
    assert suspended.status.phase is Phase.SUSPENDED
    assert condition(suspended, "Trained").reason == Reason.SUSPENDED
    assert condition(suspended, "Stalled").status == "False"
    assert too_early.actions == ()
    assert resumed.actions == (CreateJob(Stage.TRAIN, 1, KEY, DIGEST),)


@pytest.mark.parametrize("wish", [{"suspend": True}, {"cancel": True}])
def test_a_job_that_is_not_in_sight_yet_is_stopped_too(wish):
    attempt = an_attempt(Stage.TRAIN, started_at=at(0))
    run = a_run(a_status([Stage.DATASET], [attempt]), **wish)

    early = decide(run, seen(), later(2))
    later_on = decide(after(run, early), seen(), later(11))

    assert early.actions == (DeleteJob(attempt.job),)
    assert condition(early, "Reconciling").message == f"stopping {attempt.job}"
    assert later_on.status.phase in (Phase.SUSPENDED, Phase.CANCELLED)


@pytest.mark.parametrize("phase", ["Pending", "Running", "Unknown"])
def test_a_run_is_not_called_suspended_while_a_pod_of_its_failed_job_has_not_ended(phase):
    run = a_run(a_status([Stage.DATASET], [an_attempt(Stage.TRAIN)]), suspend=True)
    leaving = a_failed_job(Stage.TRAIN, 32, deleting=True)
    ended = replace(leaving, pods=tuple(replace(pod, phase="Failed") for pod in leaving.pods))
    leaving = replace(leaving, pods=tuple(replace(pod, phase=phase) for pod in leaving.pods))

    early, later_on = decide(run, seen(leaving), NOON), decide(run, seen(ended), NOON)

    assert early.status.phase is not Phase.SUSPENDED
    assert condition(early, "Reconciling").message.startswith("stopping ")
    assert later_on.status.phase is Phase.SUSPENDED


def test_cancelling_ends_the_run_once_nothing_runs():
    status = a_status([Stage.DATASET], [an_attempt(Stage.TRAIN)])
    job = a_job(Stage.TRAIN, pod=a_pod())

    stopping = decide(a_run(status, cancel=True), seen(job), NOON)
    ended_run = decide(a_run(stopping.status, cancel=True), seen(), later(5))

    assert stopping.actions == (DeleteJob(job.name),)
    assert stopping.status.phase is not Phase.CANCELLED
    assert ended_run.status.phase is Phase.CANCELLED
    assert ended_run.status.completion_time == at(5)
    assert condition(ended_run, "Ready").reason == Reason.CANCELLED


def test_failed_gates_keep_the_model_and_roll_nothing_out():
    report = a_report(
        Stage.EVALUATE, evaluation=EvaluationFacts(passed=False, gate="answer_recall 0.41 < 0.60")
    )
    run = a_run(a_status(ALL_STAGES[:3], [an_attempt(Stage.EVALUATE)]))

    decision = decide(run, seen(a_succeeded_job(Stage.EVALUATE, report=report)), NOON)

    assert decision.actions == ()
    assert decision.status.phase is Phase.NOT_PROMOTED
    assert condition(decision, "Ready").status == "False"
    assert condition(decision, "Stalled").reason == Reason.GATES_FAILED
    assert "answer_recall 0.41 < 0.60" in condition(decision, "RolledOut").message
    assert decision.status.evaluation is not None
    assert decision.status.evaluation.gate == "answer_recall 0.41 < 0.60"


def test_a_run_that_asks_for_no_rollout_succeeds_with_the_model_stored():
    decision = decide(a_run(a_status(ALL_STAGES), rollout={"mode": "None"}), Observed(), NOON)

    assert decision.status.phase is Phase.SUCCEEDED
    assert condition(decision, "Ready").status == "True"
    assert condition(decision, "RolledOut").reason == Reason.ROLLOUT_NOT_ASKED


def test_a_manual_rollout_waits_for_approval():
    manual = a_rollout(mode="Manual")

    waiting = decide(a_run(a_status(ALL_STAGES), rollout=manual), seen(), NOON)
    approved = decide(a_run(waiting.status, rollout=manual | {"approved": True}), seen(), later(60))

    assert waiting.status.phase is Phase.AWAITING_APPROVAL
    assert waiting.actions == ()
    assert approved.status.phase is Phase.ROLLING_OUT


RUN_KEY, OTHER_KEY = "a" * 64, "b" * 64


def with_dataset(changed=None):
    dataset = DatasetStatus(digest=DIGEST, documents=44, changed_documents=changed)
    return a_status((Stage.DATASET,), run_key=RUN_KEY, dataset=dataset)


def test_a_run_that_would_come_to_the_model_that_is_live_ends_unchanged_and_trains_nothing():
    run = a_run(with_dataset(0), compareWith={"runKey": RUN_KEY, "datasetDigest": OTHER_KEY}, rollout=ROLLOUT)

    decision = decide(run, seen(target=a_deployment()), NOON)

    assert decision.actions == ()
    assert decision.status.phase is Phase.UNCHANGED
    assert condition(decision, "Ready").status == "True"
    assert condition(decision, "Trained").reason == Reason.UNCHANGED
    assert (
        "0 of 44 documents came, went or changed; nothing is trained" in condition(decision, "Ready").message
    )
    again = decide(after(run, decision), seen(target=a_deployment()), NOON)
    assert (again.actions, again.status.phase) == ((), Phase.UNCHANGED)


def test_a_run_that_would_come_to_another_model_is_trained():
    run = a_run(with_dataset(12), compareWith={"runKey": OTHER_KEY, "datasetDigest": OTHER_KEY})

    (action,) = decide(run, seen(), NOON).actions
    assert isinstance(action, CreateJob)
    assert action.stage is Stage.TRAIN


def test_a_run_that_asks_for_the_dataset_alone_ends_with_it():
    run = a_run(with_dataset(12), lastStage="dataset", compareWith={"datasetDigest": OTHER_KEY})

    decision = decide(run, seen(), NOON)

    assert decision.actions == ()
    assert decision.status.phase is Phase.SUCCEEDED
    assert condition(decision, "Ready").message == (
        "12 of 44 documents came, went or changed; spec.lastStage asks for the dataset alone"
    )
    assert condition(decision, "RolledOut").reason == Reason.TRAINING_NOT_ASKED


def test_an_ended_run_only_notes_a_new_generation():
    over = a_status(ALL_STAGES, phase=Phase.SUCCEEDED, completion_time=at(-60))

    decision = decide(a_run(over, generation=2, suspend=True), seen(), NOON)

    assert decision.actions == ()
    assert decision.status.phase is Phase.SUCCEEDED
    assert decision.status.observed_generation == 2
    assert decide(a_run(decision.status, generation=2), seen(), later(60)).status == decision.status


def test_progress_and_what_a_run_waits_for_are_only_notes():
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))
    line = ProgressLine(stage=Stage.DATASET, step=3, total_steps=9, time=at(0)).to_line()
    before = decide(run, seen(a_job(Stage.DATASET, pod=a_pod(), log_tail=())), later(0)).status

    decision = decide(
        after(run, decide(run, seen(a_job(Stage.DATASET, pod=a_pod(), log_tail=())), later(0))),
        seen(a_job(Stage.DATASET, pod=a_pod(), log_tail=(line,))),
        later(1),
    )

    assert decision.status != before
    assert only_notes(before, decision)


@pytest.mark.parametrize(
    "observed",
    [
        seen(a_job(Stage.DATASET, pod=a_pod(ended(0, a_report(Stage.DATASET).to_message())), complete=True)),
        seen(a_job(Stage.DATASET, pod=a_pod(ended(10)), failed_reason="PodFailurePolicy")),
        seen(),
    ],
    ids=["ended well", "failed", "vanished"],
)
def test_what_ends_an_attempt_is_more_than_a_note(observed):
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))

    assert not only_notes(run.status, decide(run, observed, later(60)))


@pytest.mark.parametrize(
    ("run", "enough"),
    [
        (a_run(a_status(attempts=[an_attempt(Stage.TRAIN)])), True),
        (a_run(a_status(), rollout={"mode": "None"}), True),
        (a_run(), False),
        (a_run(a_status(ALL_STAGES)), False),
        (a_run(a_status(ALL_STAGES, phase=Phase.FAILED)), False),
    ],
    ids=["trains", "no rollout", "target before the first Job", "rollout", "ended"],
)
def test_jobs_and_pods_tell_all_while_no_target_is_near(run, enough):
    assert children_tell_all(run) is enough


@pytest.mark.parametrize(
    ("run", "observed"),
    [
        (a_run(), Observed()),
        (a_run(a_status(attempts=[an_attempt(Stage.DATASET)])), seen(a_job(Stage.DATASET, pod=a_pod()))),
        (a_run(a_status(attempts=[an_attempt(Stage.DATASET)])), seen(a_failed_job(Stage.DATASET, 11))),
        (a_run(a_status(attempts=[an_attempt(Stage.DATASET)])), seen(a_failed_job(Stage.DATASET, 20))),
        (a_run(a_status(ALL_STAGES), rollout={"mode": "None"}), Observed()),
        (a_run(a_status([Stage.DATASET], []), suspend=True), seen()),
        (
            a_run(a_status(ALL_STAGES), rollout=ROLLOUT),
            seen(target=replace(a_deployment(), paused=True)),
        ),
    ],
)
def test_deciding_twice_changes_nothing(run, observed):
    once = decide(run, observed, NOON)
    twice = decide(after(run, once), observed, NOON)

    assert twice.actions == ()
    assert twice.status == once.status


def test_the_time_of_a_condition_moves_only_with_its_status():
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))
    first = decide(run, seen(a_job(Stage.DATASET, pod=a_pod(None))), NOON)

    second = decide(after(run, first), seen(a_job(Stage.DATASET, pod=a_pod())), later(20))

    assert condition(first, "DatasetReady").reason != condition(second, "DatasetReady").reason
    assert condition(second, "DatasetReady").last_transition_time == at(0)


def test_a_refused_action_is_told_to_the_user_and_tried_again():
    decision = refused(a_run(), 'jobs "x" is forbidden: exceeded quota', NOON)

    assert condition(decision, "Stalled").status == "True"
    assert "exceeded quota" in condition(decision, "Ready").message
    assert decision.requeue_after == 60


@pytest.mark.parametrize(
    ("phase", "ended", "reason"),
    [
        (Phase.SUCCEEDED, Reason.COMPLETED, Reason.COMPLETED),
        (Phase.SUCCEEDED, Reason.ROLLOUT_NOT_ASKED, Reason.COMPLETED),
        (Phase.SUCCEEDED, Reason.TRAINING_NOT_ASKED, Reason.TRAINING_NOT_ASKED),
        (Phase.UNCHANGED, Reason.UNCHANGED, Reason.UNCHANGED),
    ],
)
def test_a_run_that_ended_well_and_was_spoilt_by_the_words_of_a_refusal_is_ready_again(phase, ended, reason):
    refusal = kstatus(Mood.NEEDS_PERSON, Reason.INFRASTRUCTURE, "the API server refuses: 403")
    words = "the words it ended with"
    spoilt = merged((), (*refusal, false(ConditionType.ROLLED_OUT, ended, words)), 1, NOON)
    run = a_run(a_status(ALL_STAGES, phase=phase, conditions=spoilt))

    healed = decide(run, seen(), later(60))

    told = [(found.status, found.reason, found.message) for found in healed.status.conditions[:3]]
    assert told == [("True", reason, words), ("False", reason, ""), ("False", reason, "")]
    assert decide(after(run, healed), seen(), later(90)).status == healed.status


def test_a_failed_attempt_keeps_the_end_of_its_log_without_the_progress_lines():
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))
    progress = ProgressLine(stage=Stage.DATASET, step=1).to_line()
    job = a_failed_job(Stage.DATASET, 11, log_tail=("reading posts", progress, "only 3 documents"))

    decision = decide(run, seen(job), NOON)

    assert decision.status.attempts[0].last_log_lines == ["reading posts", "only 3 documents"]


def test_the_estimate_goes_when_nothing_runs_but_the_loss_stays():
    progress = Progress(stage=Stage.TRAIN, step=4, loss="1.2", eta="4m", eta_seconds=240)
    run = a_run(a_status([Stage.DATASET], [an_attempt(Stage.TRAIN)], progress=progress))

    decision = decide(run, seen(a_failed_job(Stage.TRAIN, 33)), NOON)

    assert decision.status.progress is not None
    assert (decision.status.progress.eta, decision.status.progress.loss) == ("", "1.2")


def test_cancelling_during_a_rollout_puts_the_previous_model_back():
    rollout = RolloutStatus(
        phase=RolloutPhase.PROGRESSING,
        target="deployment/chat",
        target_uid="chat-uid",
        current=NEW_MODEL,
        previous=OLD_MODEL,
        patched_at=at(0),
        patched_generation=3,
    )
    run = a_run(a_status(ALL_STAGES, rollout=rollout), cancel=True)

    turned = decide(run, seen(target=a_deployment(NEW_MODEL, updated_replicas=0)), later(5))
    patching = decide(after(run, turned), seen(target=a_deployment(NEW_MODEL)), later(5))
    ended_run = decide(after(run, patching), seen(), later(9))

    assert turned.status.rollout is not None
    assert turned.status.rollout.phase is RolloutPhase.ROLLING_BACK
    assert len(patching.actions) == 1
    assert ended_run.status.phase is Phase.CANCELLED
