"""A target that was made anew after its run had ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.run_status import Phase, RolloutPhase, RolloutStatus
from finetune_operator.actions import PatchTarget
from finetune_operator.events import transitions
from finetune_operator.lifecycle import asks_for_target, decide, rollout_targets
from finetune_operator.observed import NO_MODEL, Observed, Quarantined, Refusal, Run, RunKey
from finetune_operator.reading import is_settled
from finetune_operator.rollout.states import rehearsal
from tests.finetune_operator.samples import (
    ALL_STAGES,
    NEW_MODEL,
    OLD_MODEL,
    a_deployment,
    a_rollout,
    a_run,
    a_status,
    after,
    condition,
    later,
    seen,
)
from tests.finetune_operator.small_queue import Keys, watched

ANEW = a_deployment(NO_MODEL, uid="another-uid")


def ended(phase: Phase = Phase.SUCCEEDED, rollout: RolloutPhase = RolloutPhase.SUCCEEDED) -> Run:
    kept = RolloutStatus(
        phase=rollout,
        target="deployment/chat",
        target_uid="chat-uid",
        current=NEW_MODEL,
        previous=OLD_MODEL,
    )
    return a_run(a_status(ALL_STAGES, phase=phase, rollout=kept))


def test_a_new_object_without_a_model_gets_the_last_one_once():
    run = ended()

    decision = decide(run, seen(target=ANEW), later(900))
    again = decide(after(run, decision), seen(target=ANEW), later(901))

    (patch,) = decision.actions
    assert isinstance(patch, PatchTarget)
    assert NEW_MODEL.uri in str(patch.payload)
    assert patch.payload["metadata"] == {"name": "chat", "uid": "another-uid"}
    assert decision.status.phase is Phase.SUCCEEDED
    assert again.actions == ()
    (told,) = transitions(run.status, decision.status)
    assert (told.reason, told.warning) == ("ModelReasserted", False)
    assert NEW_MODEL.model_id in told.message
    assert transitions(decision.status, again.status) == ()


@pytest.mark.parametrize(
    "observed",
    [
        Observed(),
        seen(target=a_deployment(NO_MODEL)),
        seen(target=a_deployment(OLD_MODEL, uid="another-uid")),
        seen(target=ANEW, newer_run="blog-2"),
        seen(target=ANEW, rolling_run="blog-2"),
        seen(target=ANEW, recorded={"MODEL_ID": OLD_MODEL.model_id}),  # of a later run that was deleted
        seen(target=ANEW, quarantine=(Quarantined(NEW_MODEL.model_id),)),
        seen(target=ANEW, refusal=Refusal("409", "argocd-controller", ".env")),
        seen(target=a_deployment(NO_MODEL, uid="another-uid", init_containers=())),
    ],
)
def test_what_is_not_lost_or_not_ours_to_give_is_left_alone(observed):
    assert decide(ended(), observed, later(900)).actions == ()


@pytest.mark.parametrize(
    ("observed", "reason", "words"),
    [
        (seen(target=ANEW, rolling_run="blog-2"), "Waiting", 'run "blog-2" is rolling out'),
        (seen(target=ANEW, refusal=Refusal("409", "argocd", ".env")), "FieldConflict", 'owned by "argocd"'),
        (seen(target=replace(ANEW, init_containers=())), "ContainerNotFound", "model-fetch"),
        (
            seen(target=ANEW, recorded={"MODEL_ID": OLD_MODEL.model_id, "MODEL_URI": OLD_MODEL.uri}),
            "Superseded",
            f"MODEL_URI={OLD_MODEL.uri}",
        ),
        (seen(target=ANEW, quarantine=(Quarantined(NEW_MODEL.model_id),)), "Quarantined", "quarantine"),
    ],
)
def test_why_a_target_made_anew_has_no_model_is_told_and_looked_at_until_it_has_one(observed, reason, words):
    run = ended()

    waiting = decide(run, observed, later(900))
    again = decide(after(run, waiting), observed, later(930))
    given = decide(after(run, waiting), seen(target=ANEW), later(960))
    by_hand = decide(after(run, waiting), seen(target=a_deployment(OLD_MODEL, uid="x")), later(960))

    told = condition(waiting, "RolledOut")
    assert (told.status, told.reason, waiting.requeue_after) == ("False", reason, 30)
    assert "deployment/chat was made anew and has no model" in told.message
    assert words in told.message
    assert again.status == waiting.status
    assert waiting.status.phase is Phase.SUCCEEDED
    for over in (given, by_hand):
        assert condition(over, "RolledOut").status == "True"
        assert over.requeue_after is None


def test_a_target_that_a_newer_run_gives_its_model_to_is_nothing_to_tell_of():
    decision = decide(ended(), seen(target=ANEW, newer_run="blog-2"), later(900))

    assert decision.requeue_after is None
    assert [told.type for told in decision.status.conditions if told.type == "RolledOut"] == []


@pytest.mark.parametrize("recorded", [{}, {"HISTORY": "[]"}, {"MODEL_ID": NEW_MODEL.model_id}])
def test_a_record_that_names_no_other_model_lets_the_run_give_its_own(recorded):
    assert len(decide(ended(), seen(target=ANEW, recorded=recorded), later(900)).actions) == 1


@pytest.mark.parametrize(
    "run", [ended(Phase.ROLLED_BACK, RolloutPhase.ROLLED_BACK), ended(rollout=RolloutPhase.SUPERSEDED)]
)
def test_a_run_whose_model_is_not_live_gives_nothing(run):
    assert decide(run, seen(target=ANEW), later(900)).actions == ()
    assert is_settled(a_body(run))
    assert not asks_for_target(run)


def a_row(**known: str) -> Run:
    """Ended with three targets, the last of which is `help`."""
    run = ended()
    assert run.status.rollout is not None
    changes = {"target": "deployment/help", "target_uid": "help-uid", "done": ["chat", "shop", "help"]}
    rollout = run.status.rollout.model_copy(update=changes | {"done_uids": known})
    target = {"deployment": {"name": "chat", "others": ["shop", "help"]}}
    return a_run(run.status.model_copy(update={"rollout": rollout}), rollout=a_rollout(target=target))


UIDS = {"chat": "chat-uid", "shop": "shop-uid", "help": "help-uid"}


@pytest.mark.parametrize("name", ["chat", "shop", "help"])
def test_every_target_of_a_row_gets_its_model_back_and_the_others_are_looked_at_next(name):
    run, anew = a_row(**UIDS), replace(ANEW, name=name)

    decision = decide(run, seen(target=anew), later(900))
    again = decide(after(run, decision), seen(target=anew), later(901))

    (patch,) = decision.actions
    assert isinstance(patch, PatchTarget)
    assert patch.deployment == name
    assert decision.requeue_after == 0
    assert again.actions == ()
    assert decision.status.rollout is not None
    assert decision.status.rollout.done_uids == UIDS | {name: "another-uid"}
    (told,) = transitions(run.status, decision.status)
    assert f"deployment/{name} was made anew" in told.message


def test_a_row_that_an_earlier_release_rolled_out_knows_its_last_target_alone():
    run = a_row()

    assert decide(run, seen(target=replace(ANEW, name="chat")), later(900)).actions == ()
    assert len(decide(run, seen(target=replace(ANEW, name="help")), later(900)).actions) == 1


@pytest.mark.parametrize("name", ["chat", "help"])
def test_an_ended_run_is_woken_by_any_target_of_its_row_that_was_made_anew(name):
    keys = Keys()
    runs = watched(keys)
    runs.run_changed(a_body(a_row(**UIDS)))
    for known in UIDS:
        runs.deployment_changed("demo", known, f"{known}-uid")
    assert keys.added == []

    runs.deployment_changed("demo", name, "another-uid")
    runs.deployment_changed("demo", "somebody-elses", "another-uid")

    assert keys.added == [RunKey("demo", "blog")]


def test_an_ended_run_takes_its_turn_at_all_of_its_targets_in_one_order():
    assert rollout_targets(a_row(**UIDS)) == ("chat", "help", "shop")


def test_the_patch_is_rehearsed_only_when_the_model_is_lost():
    assert rehearsal(ended(), ANEW) is not None
    assert rehearsal(ended(), a_deployment(NEW_MODEL)) is None


def a_body(run: Run) -> dict[str, Any]:
    metadata = {"namespace": "demo", "name": run.name, "generation": 1, "resourceVersion": "7"}
    return {"metadata": metadata, "spec": run.spec_as_written, "status": run.status.to_wire()}


def test_an_ended_run_is_woken_only_by_a_target_that_was_made_anew():
    keys = Keys()
    runs = watched(keys)
    runs.run_changed(a_body(ended()))
    for uid in ("chat-uid", "chat-uid", "", "another-uid", "another-uid"):
        runs.deployment_changed("demo", "chat", uid)

    assert keys.added == [RunKey("demo", "blog")]


def test_it_does_not_matter_whether_the_run_or_its_target_is_seen_first():
    keys = Keys()
    runs = watched(keys)
    runs.deployment_changed("demo", "chat", "another-uid")
    for _ in range(3):
        runs.run_changed(a_body(ended()))

    assert keys.added == [RunKey("demo", "blog")]
