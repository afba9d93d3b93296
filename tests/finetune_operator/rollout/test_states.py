"""The rollout's machine: record, patch, watch, verify, or put back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import (
    ArtifactStatus,
    EvaluationStatus,
    Phase,
    Reason,
    RolloutPhase,
    RolloutStatus,
)
from finetune_contract.stage_protocol import ReaderQuestion
from finetune_operator.actions import Decision, PatchTarget
from finetune_operator.lifecycle import decide
from finetune_operator.observed import (
    NO_MODEL,
    ConditionFacts,
    ContainerFacts,
    Observed,
    ReaderAnswer,
    Refusal,
    Run,
    ServedModel,
    ServiceFacts,
    Tally,
    Termination,
)
from finetune_operator.rollout.reverts import put_back_words
from finetune_operator.rollout.states import rehearsal
from finetune_operator.rollout.target_shape import TargetShape, Writer
from tests.finetune_operator.samples import (
    ALL_STAGES,
    MANIFEST,
    NEW_MODEL,
    NOON,
    OLD_MODEL,
    URI,
    a_deployment,
    a_run,
    a_status,
    a_target_pod,
    after,
    at,
    condition,
    later,
    seen,
)

NEW_ID = f"sha256:{MANIFEST}"
TARGET = DeploymentTarget(name="chat")


def rolling(phase: RolloutPhase = RolloutPhase.PROGRESSING, **changes: object) -> Run:
    """A run whose model was put into the target at noon."""
    rollout = RolloutStatus(
        phase=phase,
        target="deployment/chat",
        target_uid="chat-uid",
        current=NEW_MODEL,
        previous=OLD_MODEL,
        patched_at=at(0),
        patched_generation=4,
    ).model_copy(update=changes)
    return a_run(a_status(ALL_STAGES, rollout=rollout, phase=Phase.ROLLING_OUT))


def patches(decision: Decision) -> list[PatchTarget]:
    return [action for action in decision.actions if isinstance(action, PatchTarget)]


def phase_of(decision: Decision) -> RolloutPhase | None:
    return decision.status.rollout.phase if decision.status.rollout else None


def test_the_previous_model_is_on_record_before_the_target_is_touched():
    run = a_run(a_status(ALL_STAGES))

    recorded = decide(run, seen(), NOON)
    patched = decide(after(run, recorded), seen(), NOON)

    assert recorded.actions == ()
    assert recorded.status.rollout is not None
    assert recorded.status.rollout.previous == OLD_MODEL
    assert recorded.requeue_after == 0
    assert phase_of(patched) is RolloutPhase.PROGRESSING
    assert patched.actions == (
        PatchTarget(
            "chat",
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "chat", "uid": "chat-uid"},
                "spec": {
                    "template": {
                        "spec": {
                            "initContainers": [
                                {
                                    "name": "model-fetch",
                                    "env": [
                                        {"name": "MODEL_URI", "value": URI},
                                        {"name": "MODEL_MANIFEST_SHA256", "value": MANIFEST},
                                    ],
                                }
                            ],
                            "containers": [
                                {"name": "model-server", "env": [{"name": "MODEL_ID", "value": NEW_ID}]}
                            ],
                        }
                    }
                },
            },
        ),
    )


def test_a_good_rollout_is_watched_verified_and_ends_the_run():
    run = rolling()
    target = a_deployment(NEW_MODEL)

    verifying = decide(run, seen(target=target), later(5))
    asked = seen(target=target, served=(ServedModel("chat-1", NEW_ID),))
    done = decide(after(run, verifying), asked, later(6))

    assert phase_of(verifying) is RolloutPhase.VERIFYING
    assert phase_of(done) is RolloutPhase.SUCCEEDED
    assert done.status.phase is Phase.SUCCEEDED
    assert condition(done, "Ready").status == "True"
    assert condition(done, "Reconciling").status == "False"
    assert condition(done, "RolledOut").status == "True"
    assert done.status.completion_time == at(6)


QUESTION = ReaderQuestion(question="What does the wheel do?", must_contain=["turns"])
SERVED = Tally(answered=20, named=((NEW_ID, 20),))
SERVICE = ServiceFacts("site", watched=SERVED, answers=(ReaderAnswer(QUESTION, "It turns."),))
ERRORS = replace(SERVED, failed=20, problem="status 502")


def asking_readers(phase: RolloutPhase) -> Run:
    run = rolling(phase)
    evaluation = EvaluationStatus(passed=True, reader_questions=[QUESTION])
    return replace(run, status=run.status.model_copy(update={"evaluation": evaluation}))


@pytest.mark.parametrize(
    ("service", "phase", "reason"),
    [
        (None, RolloutPhase.SUCCEEDED, None),
        (SERVICE, RolloutPhase.SUCCEEDED, None),
        (ServiceFacts(problem="no Service"), RolloutPhase.SUCCEEDED, None),
        (ServiceFacts("site"), RolloutPhase.VERIFYING, None),
        (replace(SERVICE, answers=()), RolloutPhase.VERIFYING, None),
        (
            replace(SERVICE, answers=(ReaderAnswer(QUESTION, "<unused>"),)),
            RolloutPhase.ROLLING_BACK,
            Reason.WRONG_ANSWERS,
        ),
        (replace(SERVICE, watched=ERRORS), RolloutPhase.ROLLING_BACK, Reason.SERVICE_ERRORS),
        (replace(SERVICE, switching=ERRORS), RolloutPhase.ROLLING_BACK, Reason.SERVICE_ERRORS),
    ],
)
def test_what_readers_meet_through_the_service_decides_once_every_pod_serves(service, phase, reason):
    asked = seen(target=a_deployment(NEW_MODEL), served=(ServedModel("chat-1", NEW_ID),), service=service)

    decision = decide(asking_readers(RolloutPhase.VERIFYING), asked, later(20))

    assert phase_of(decision) is phase
    if reason is not None:
        assert condition(decision, "RolledOut").reason == reason
        assert decision.status.rollout is not None
        assert decision.status.rollout.service.startswith('Service "site" answered')


def test_the_numbers_stand_in_the_condition_of_a_rollout_that_is_done():
    asked = seen(target=a_deployment(NEW_MODEL), served=(ServedModel("chat-1", NEW_ID),), service=SERVICE)

    done = decide(asking_readers(RolloutPhase.VERIFYING), asked, later(20))

    words = 'Service "site" answered 20 of 20 requests, 1 of 1 golden questions right'
    assert condition(done, "RolledOut").message == f"deployment/chat serves {NEW_ID}; {words}"


def test_errors_while_the_pods_still_change_turn_the_rollout_back():
    changing = seen(
        target=a_deployment(NEW_MODEL, total_replicas=2), service=ServiceFacts("site", switching=ERRORS)
    )

    decision = decide(asking_readers(RolloutPhase.PROGRESSING), changing, later(20))

    assert phase_of(decision) is RolloutPhase.ROLLING_BACK
    assert condition(decision, "RolledOut").reason == Reason.SERVICE_ERRORS


def test_a_cause_that_the_pods_show_is_told_before_the_errors_that_it_makes():
    crashed = ContainerFacts(
        "model-server", last_terminated=Termination(139, "Error", "segfault"), restarts=1
    )
    observed = seen(
        target=a_deployment(NEW_MODEL),
        target_pods=(a_target_pod(crashed),),
        service=replace(SERVICE, watched=ERRORS),
    )

    decision = decide(asking_readers(RolloutPhase.VERIFYING), observed, later(20))

    assert condition(decision, "RolledOut").reason == Reason.CONTAINER_CRASHED


@pytest.mark.parametrize(("seconds", "phase"), [(1000, "Verifying"), (1040, "Succeeded")])
def test_questions_that_take_their_time_are_no_late_rollout_and_have_an_end(seconds, phase):
    asked = seen(
        target=a_deployment(NEW_MODEL),
        served=(ServedModel("chat-1", NEW_ID),),
        service=replace(SERVICE, answers=()),
    )

    decision = decide(asking_readers(RolloutPhase.VERIFYING), asked, later(seconds))

    assert phase_of(decision) == phase


def test_a_run_that_is_cancelled_while_readers_questions_are_asked_takes_the_model_back():
    asked = seen(
        target=a_deployment(NEW_MODEL),
        served=(ServedModel("chat-1", NEW_ID),),
        service=replace(SERVICE, answers=()),
    )
    run = replace(asking_readers(RolloutPhase.VERIFYING), spec=a_run(cancel=True).spec)

    decision = decide(run, asked, later(20))

    assert phase_of(decision) is RolloutPhase.ROLLING_BACK
    assert condition(decision, "RolledOut").reason == Reason.CANCELLED


def test_a_pod_that_serves_another_model_turns_the_rollout_back():
    run = rolling(RolloutPhase.VERIFYING)
    asked = seen(target=a_deployment(NEW_MODEL), served=(ServedModel("chat-1", "sha256:other"),))

    decision = decide(run, asked, later(5))

    assert phase_of(decision) is RolloutPhase.ROLLING_BACK
    assert condition(decision, "RolledOut").reason == Reason.WRONG_MODEL_SERVED


def test_a_model_that_crashes_after_its_pod_was_ready_is_taken_back():
    run = rolling(RolloutPhase.VERIFYING)
    crashed = ContainerFacts(
        "model-server",
        ready=True,
        running=True,
        restarts=1,
        last_terminated=Termination(139, "Error", "segfault"),
    )
    asked = seen(
        target=a_deployment(NEW_MODEL),
        target_pods=(a_target_pod(crashed, ready=True),),
        served=(ServedModel("chat-1", NEW_ID),),
    )

    decision = decide(run, asked, later(12))

    assert phase_of(decision) is RolloutPhase.ROLLING_BACK
    assert condition(decision, "RolledOut").reason == Reason.CONTAINER_CRASHED
    assert "segfault" in condition(decision, "RolledOut").message


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (60, RolloutPhase.VERIFYING),
        (905, RolloutPhase.VERIFYING),  # the rollout's 900 seconds do not count for it
        (1000, RolloutPhase.SUCCEEDED),  # as long as the last pod's window
        (1205, RolloutPhase.SUCCEEDED),  # nor is it prolonged for ever by new pods
    ],
)
def test_a_model_that_serves_is_watched_for_the_time_that_the_run_asks_for(
    seconds: int, expected: RolloutPhase
):
    asking = rolling(RolloutPhase.VERIFYING)
    rollout = asking.spec.rollout.model_copy(update={"observation_seconds": 300})
    run = replace(asking, spec=asking.spec.model_copy(update={"rollout": rollout}))
    started = at(700) if seconds < 1200 else at(1200)
    server = ContainerFacts("model-server", ready=True, running=True, started_at=started)
    asked = seen(
        target=a_deployment(NEW_MODEL),
        target_pods=(a_target_pod(server, ready=True),),
        served=(ServedModel("chat-1", NEW_ID),),
    )

    assert phase_of(decide(run, asked, later(seconds))) is expected


def test_a_run_that_is_cancelled_while_its_model_is_watched_takes_it_back():
    run = rolling(RolloutPhase.VERIFYING)
    server = ContainerFacts("model-server", ready=True, running=True, started_at=at(1))
    asked = seen(
        target=a_deployment(NEW_MODEL),
        target_pods=(a_target_pod(server, ready=True),),
        served=(ServedModel("chat-1", NEW_ID),),
    )

    decision = decide(replace(run, spec=a_run(cancel=True).spec), asked, later(5))

    assert phase_of(decision) is RolloutPhase.ROLLING_BACK
    assert condition(decision, "RolledOut").reason == Reason.CANCELLED


def test_a_pod_that_does_not_answer_is_waited_for_until_the_time_is_up():
    run = rolling(RolloutPhase.VERIFYING)
    silent = seen(
        target=a_deployment(NEW_MODEL), served=(ServedModel("chat-1", problem="connection refused"),)
    )

    waiting = decide(run, silent, later(5))
    late = decide(run, silent, later(901))

    assert phase_of(waiting) is RolloutPhase.VERIFYING
    assert "connection refused" in condition(waiting, "RolledOut").message
    assert phase_of(late) is RolloutPhase.ROLLING_BACK
    assert condition(late, "RolledOut").reason == Reason.PROGRESS_DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("changes", "pod", "reason"),
    [
        (
            {"replicas": 0, "updated_replicas": 0, "total_replicas": 0, "available_replicas": 0},
            None,
            "NoReplicas",
        ),
        ({"paused": True, "updated_replicas": 0}, None, "DeploymentPaused"),
        ({"generation": 9}, None, "Infrastructure"),
        (
            {"available_replicas": 0},
            a_target_pod(ContainerFacts("model-fetch", init=True, terminated=Termination(20), restarts=1)),
            "StoreUnavailable",
        ),
        (
            {"available_replicas": 0},
            a_target_pod(unschedulable="0/1 nodes", created_at=at(800)),
            "Unschedulable",
        ),
    ],
)
@pytest.mark.parametrize("phase", [RolloutPhase.PROGRESSING, RolloutPhase.VERIFYING])
def test_a_rollout_that_is_late_for_a_known_cause_ends_with_it_and_blames_no_model(
    changes, pod, reason, phase
):
    run = rolling(phase)
    shut = ServiceFacts("site", switching=ERRORS, watched=ERRORS) if reason == "NoReplicas" else None
    observed = seen(
        target=a_deployment(NEW_MODEL, **changes), target_pods=(pod,) if pod else (), service=shut
    )
    for seconds in (901, 902):  # where all seemed complete, the pods are asked next
        decision = decide(run, observed, later(seconds))
        run = after(run, decision)
    back = seen(target=a_deployment(OLD_MODEL))
    ended = decide(run, back, later(903))

    assert ended.status.phase is Phase.ROLLED_BACK
    assert condition(ended, "RolledOut").reason == reason
    assert ended.status.rollout is not None
    assert ended.status.rollout.quarantine == ""


def test_a_paused_target_with_its_previous_values_is_back_and_needs_only_to_be_resumed():
    run = rolling(RolloutPhase.ROLLING_BACK, reason="DeploymentPaused", message="late")

    decision = decide(run, seen(target=a_deployment(OLD_MODEL, paused=True, updated_replicas=0)), later(5))

    assert phase_of(decision) is RolloutPhase.ROLLED_BACK
    assert (
        "kubectl rollout resume deployment/chat --namespace=demo" in condition(decision, "RolledOut").message
    )


def test_a_broken_model_is_taken_back_with_its_cause_in_words():
    run = rolling()
    broken = a_target_pod(
        ContainerFacts(
            "model-fetch", init=True, terminated=Termination(12, "Error", "sha256 of model.gguf differs")
        )
    )
    updating = a_deployment(NEW_MODEL, total_replicas=2, updated_replicas=1)

    turned = decide(run, seen(target=updating, target_pods=(broken,)), later(3))
    patching = decide(after(run, turned), seen(target=updating), later(3))
    back = decide(after(run, patching), seen(target=a_deployment(OLD_MODEL)), later(7))

    assert turned.actions == ()
    assert phase_of(turned) is RolloutPhase.ROLLING_BACK
    assert condition(turned, "RolledOut").reason == Reason.MODEL_INTEGRITY
    (patch,) = patching.actions
    assert isinstance(patch, PatchTarget)
    assert OLD_MODEL.uri in str(patch.payload)
    assert phase_of(back) is RolloutPhase.ROLLED_BACK
    assert back.status.phase is Phase.ROLLED_BACK
    assert condition(back, "Stalled").status == "True"
    assert condition(back, "Ready").reason == Reason.MODEL_INTEGRITY
    assert "sha256 of model.gguf differs" in condition(back, "RolledOut").message
    assert OLD_MODEL.model_id in condition(back, "RolledOut").message


def test_a_live_model_that_a_run_adopts_and_readers_cannot_reach_stays_and_is_not_kept_back():
    run = rolling(RolloutPhase.VERIFYING, previous=NEW_MODEL)
    asked = seen(
        target=a_deployment(NEW_MODEL),
        served=(ServedModel("chat-1", NEW_ID),),
        service=replace(SERVICE, watched=ERRORS),
    )

    decision = decide(run, asked, later(20))

    told = condition(decision, "RolledOut")
    assert decision.actions == ()
    assert decision.status.phase is Phase.NOT_PROMOTED
    assert told.reason == Reason.SERVICE_ERRORS
    assert "deployment/chat had this model before the run; nothing was changed, and it stays" in told.message
    assert decision.status.rollout is not None
    assert decision.status.rollout.quarantine == ""


def test_a_first_rollout_that_fails_takes_our_entries_out_again():
    run = rolling(RolloutPhase.ROLLING_BACK, previous=NO_MODEL, reason="ModelIntegrity", message="bad")

    decision = decide(run, seen(target=a_deployment(NEW_MODEL)), later(5))

    (patch,) = decision.actions
    assert isinstance(patch, PatchTarget)
    pod = patch.payload["spec"]["template"]["spec"]  # type: ignore[index]
    assert [c["env"] for c in (*pod["initContainers"], *pod["containers"])] == [[], []]


def test_a_way_back_that_is_refused_says_what_to_run():
    run = rolling(RolloutPhase.ROLLING_BACK, reason="ModelIntegrity", message="bad")
    refused = seen(target=a_deployment(NEW_MODEL), refusal=Refusal("409", "kubectl", ".env"))

    decision = decide(run, refused, later(5))

    assert patches(decision) == []
    assert phase_of(decision) is RolloutPhase.ROLLBACK_FAILED
    assert condition(decision, "Ready").reason == Reason.ROLLBACK_FAILED
    assert put_back_words("demo", TARGET, OLD_MODEL) in condition(decision, "Ready").message


@pytest.mark.parametrize(
    ("uri", "end"),
    [
        (
            "s3://" + "a" * 200,
            put_back_words("demo", TARGET, OLD_MODEL.model_copy(update={"uri": "s3://" + "a" * 200})),
        ),
        ("s3://" + "a" * 900, "Put the values of status.rollout.previous into the two containers"),
    ],
)
def test_long_words_never_cut_the_command_that_puts_the_previous_model_back(uri, end):
    previous = OLD_MODEL.model_copy(update={"uri": uri})
    run = rolling(RolloutPhase.ROLLING_BACK, previous=previous, reason="ModelIntegrity", message="bad " * 200)
    refused = seen(target=a_deployment(NEW_MODEL), refusal=Refusal("403: " + "denied " * 100))

    decision = decide(run, refused, later(5))

    assert decision.status.rollout is not None
    assert decision.status.rollout.message.startswith("bad")
    assert decision.status.rollout.message.endswith(end)
    assert len(decision.status.rollout.message) <= 1024


def test_an_old_deadline_does_not_spoil_the_way_back():
    run = rolling(
        RolloutPhase.ROLLING_BACK, reason="ProgressDeadlineExceeded", message="late", patched_at=at(100)
    )
    stale = ConditionFacts(
        "Progressing", "False", "ProgressDeadlineExceeded", "old", last_update_time=at(100)
    )

    decision = decide(run, seen(target=a_deployment(OLD_MODEL, conditions=(stale,))), later(103))

    assert phase_of(decision) is RolloutPhase.ROLLED_BACK


@pytest.mark.parametrize(
    ("observed", "reason", "stalled"),
    [
        (Observed(), Reason.TARGET_NOT_FOUND, "True"),
        (seen(target=replace(a_deployment(), paused=True)), Reason.DEPLOYMENT_PAUSED, "False"),
        (seen(target=replace(a_deployment(), replicas=0)), Reason.NO_REPLICAS, "False"),
        (seen(refusal=Refusal("409", "helm", ".env")), Reason.FIELD_CONFLICT, "True"),
    ],
)
def test_an_obstacle_keeps_the_target_untouched_and_is_looked_at_again(observed, reason, stalled):
    decision = decide(a_run(a_status(ALL_STAGES)), observed, NOON)

    assert decision.actions == ()
    assert decision.status.phase is Phase.ROLLING_OUT
    assert condition(decision, "RolledOut").reason == reason
    assert condition(decision, "Stalled").status == stalled
    assert decision.requeue_after == (30 if stalled == "True" else 5)


def test_a_run_waits_for_another_that_is_rolling_out_to_the_same_target_and_records_what_it_left():
    run = a_run(a_status(ALL_STAGES))
    first = decide(run, seen(), NOON)
    other = OLD_MODEL.model_copy(update={"model_id": "sha256:other"})

    waiting = decide(after(run, first), seen(rolling_run="sibling"), later(1))
    rerecorded = decide(after(run, waiting), seen(target=a_deployment(other)), later(9))

    assert waiting.actions == rerecorded.actions == ()
    assert 'run "sibling"' in condition(waiting, "RolledOut").message
    assert waiting.requeue_after == 5
    assert rerecorded.status.rollout is not None
    assert rerecorded.status.rollout.previous == other


def test_a_change_by_somebody_else_ends_the_rollout_without_a_fight():
    decision = decide(rolling(), seen(target=a_deployment(OLD_MODEL)), later(5))

    assert decision.actions == ()
    assert decision.status.phase is Phase.ROLLED_BACK
    assert condition(decision, "Ready").reason == Reason.REVERTED_BY_OTHER_MANAGER


def written_by(manager: str, *owns: str) -> TargetShape:
    return TargetShape(writers=(Writer("kubectl-create", at(-900)), Writer(manager, at(3), owns)))


def test_values_that_were_wiped_once_are_put_in_once_more_and_then_no_more():
    wiped = a_deployment(NO_MODEL, shape=written_by("helm"))
    run = rolling()

    noticed = decide(run, seen(target=wiped), later(5))
    waiting = decide(after(run, noticed), seen(target=wiped), later(20))
    again = decide(after(run, waiting), seen(target=wiped), later(36))
    watched = decide(after(run, again), seen(target=a_deployment(NEW_MODEL, total_replicas=2)), later(37))
    given_up = decide(after(run, watched), seen(target=wiped), later(50))

    assert noticed.actions == waiting.actions == given_up.actions == ()
    assert len(again.actions) == 1
    assert given_up.status.rollout is not None
    assert given_up.status.rollout.previous == OLD_MODEL
    assert given_up.status.phase is Phase.ROLLED_BACK
    assert condition(given_up, "RolledOut").reason == Reason.REVERTED_BY_OTHER_MANAGER
    assert '"helm" changed deployment/chat to no model' in condition(given_up, "RolledOut").message


@pytest.mark.parametrize(("live", "patches", "ends_within"), [(OLD_MODEL, 1, 45), (NO_MODEL, 2, 110)])
def test_a_target_that_never_holds_the_change_is_given_up_instead_of_being_patched_for_ever(
    live, patches, ends_within
):
    """A mutating webhook sets the values in the request that brings them."""
    run, made, seconds = a_run(a_status(ALL_STAGES)), 0, 0.0
    mutated = seen(target=a_deployment(live))
    for _ in range(200):
        decision = decide(run, mutated, later(seconds))
        made += len(decision.actions)
        run, seconds = after(run, decision), seconds + max(0.1, decision.requeue_after or 0)
        if decision.status.phase is Phase.ROLLED_BACK:
            break

    assert condition(decision, "Ready").reason == Reason.REVERTED_BY_OTHER_MANAGER
    assert "a mutating webhook" in condition(decision, "RolledOut").message
    assert made == patches
    assert seconds < ends_within


def test_a_change_that_is_seen_late_is_waited_for_and_not_made_again():
    run = rolling(patched_generation=0)

    early = decide(run, seen(target=a_deployment(OLD_MODEL)), later(1))
    held = decide(after(run, early), seen(target=a_deployment(NEW_MODEL)), later(3))

    assert early.actions == ()
    assert early.requeue_after == 2
    assert "does not hold the change yet" in condition(early, "RolledOut").message
    assert phase_of(held) is RolloutPhase.VERIFYING


def test_cancelling_before_the_target_holds_the_change_leaves_it_as_it_is():
    run = replace(rolling(patched_generation=0), spec=a_run(cancel=True).spec)

    turning = decide(run, seen(target=a_deployment(OLD_MODEL)), later(1))
    ended = decide(after(run, turning), seen(target=a_deployment(OLD_MODEL)), later(1))

    assert turning.actions == ended.actions == ()
    assert ended.status.phase is Phase.CANCELLED


def test_a_manager_that_declares_our_values_is_named_with_its_cure_and_not_fought():
    declared = a_deployment(OLD_MODEL, shape=written_by("argocd-controller", "MODEL_URI", "MODEL_ID"))

    decision = decide(rolling(), seen(target=declared), later(5))

    words = condition(decision, "RolledOut").message
    assert decision.actions == ()
    assert condition(decision, "Ready").reason == Reason.REVERTED_BY_OTHER_MANAGER
    assert '"argocd-controller" changed deployment/chat' in words
    assert "Remove MODEL_URI, MODEL_ID from Git" in words
    assert "RespectIgnoreDifferences=true" in words
    assert 'select(.name == "model-fetch")' in words


def test_an_older_run_leaves_the_model_of_a_newer_one_alone():
    decision = decide(a_run(a_status(ALL_STAGES)), seen(newer_run="blog-2"), NOON)

    assert decision.actions == ()
    assert phase_of(decision) is RolloutPhase.SUPERSEDED
    assert decision.status.phase is Phase.SUCCEEDED
    assert condition(decision, "Ready").status == "True"
    assert condition(decision, "RolledOut").reason == Reason.SUPERSEDED
    assert 'run "blog-2" was made later' in condition(decision, "RolledOut").message


def test_a_model_that_needs_more_memory_than_the_server_may_use_is_not_patched_in():
    artifact = ArtifactStatus(uri=URI, manifest_sha256=MANIFEST, serving_bytes=700 * 2**20)
    small = a_deployment(shape=TargetShape(memory_limits=(("model-server", 512 * 2**20),)))
    run = a_run(a_status(ALL_STAGES, artifact=artifact))

    decision = decide(run, seen(target=small), NOON)
    serving_already = decide(
        run,
        seen(
            target=replace(
                small,
                containers=a_deployment(NEW_MODEL).containers,
                init_containers=a_deployment(NEW_MODEL).init_containers,
            )
        ),
        NOON,
    )

    assert decision.actions == ()
    assert decision.status.rollout is None
    assert condition(decision, "RolledOut").reason == Reason.MODEL_TOO_LARGE
    assert "may use 512 MiB, the model needs about 800 MiB" in condition(decision, "RolledOut").message
    assert phase_of(serving_already) is RolloutPhase.PREFLIGHT


def test_what_the_strategy_asks_of_the_nodes_is_told_before_the_patch():
    shape = TargetShape(max_surge=1, max_unavailable=0, pod_memory_bytes=700 * 2**20)

    decision = decide(a_run(a_status(ALL_STAGES)), seen(target=a_deployment(shape=shape)), NOON)

    assert decision.actions == ()
    assert "room for 1 more pod, 700 MiB of requested memory each" in condition(decision, "RolledOut").message


def test_a_target_that_was_made_anew_is_recorded_and_patched_anew():
    run = rolling()
    anew = a_deployment(NO_MODEL, uid="other-uid")

    again = decide(run, seen(target=anew), later(5))
    recorded = decide(after(run, again), seen(target=anew), later(5))
    patched = decide(after(run, recorded), seen(target=anew), later(5))

    assert phase_of(again) is RolloutPhase.PREFLIGHT
    assert recorded.status.rollout is not None
    assert recorded.status.rollout.previous == NO_MODEL
    assert recorded.status.rollout.target_uid == "other-uid"
    assert len(patched.actions) == 1


def test_patching_again_after_a_crash_keeps_the_record_of_the_previous_model():
    recorded = rolling(RolloutPhase.PREFLIGHT, patched_at="", patched_generation=0)

    decision = decide(recorded, seen(target=a_deployment(NEW_MODEL)), later(5))

    assert len(decision.actions) == 1
    assert decision.status.rollout is not None
    assert decision.status.rollout.previous == OLD_MODEL


def test_cancelling_in_the_moment_of_the_patch_takes_the_model_back():
    recorded = rolling(RolloutPhase.PREFLIGHT, patched_at="", patched_generation=0)
    run = replace(recorded, spec=a_run(cancel=True).spec)

    turning = decide(run, seen(target=a_deployment(NEW_MODEL)), later(5))
    restoring = decide(after(run, turning), seen(target=a_deployment(NEW_MODEL)), later(5))

    assert phase_of(turning) is RolloutPhase.ROLLING_BACK
    assert OLD_MODEL.uri in str(restoring.actions)


def test_cancelling_while_the_target_is_gone_ends_the_run_at_once():
    run = replace(rolling(), spec=a_run(cancel=True).spec)

    decision = decide(run, seen(target=None), later(5))

    assert decision.status.phase is Phase.CANCELLED
    assert "deployment/chat is gone" in condition(decision, "Ready").message


def test_cancelling_before_the_patch_changes_no_target():
    run = replace(
        rolling(RolloutPhase.PREFLIGHT, patched_at="", patched_generation=0), spec=a_run(cancel=True).spec
    )

    decision = decide(run, seen(target=a_deployment(OLD_MODEL)), later(5))

    assert decision.status.phase is Phase.CANCELLED
    assert decision.actions == ()


def test_suspending_lets_a_rollout_that_has_begun_end():
    run = replace(rolling(), spec=a_run(suspend=True).spec)

    decision = decide(run, seen(target=a_deployment(NEW_MODEL)), later(5))

    assert phase_of(decision) is RolloutPhase.VERIFYING


def test_what_is_rehearsed_is_what_would_be_patched_next():
    target = a_deployment()

    before_any_job = rehearsal(a_run(), target)
    before_patch = rehearsal(rolling(RolloutPhase.PREFLIGHT), target)
    before_restore = rehearsal(rolling(RolloutPhase.ROLLING_BACK), target)
    while_progressing = rehearsal(rolling(), target)
    without_container = rehearsal(a_run(), replace(target, init_containers=()))

    assert before_any_job is not None
    assert URI in str(before_patch)
    assert OLD_MODEL.uri in str(before_restore)
    assert while_progressing is None
    assert without_container is None
