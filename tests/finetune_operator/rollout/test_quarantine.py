"""A model that a target had to be taken back from does not come again by itself."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.run_status import FineTuneRunStatus, Phase, Reason, RolloutPhase, RolloutStatus
from finetune_operator.actions import Decision, PatchTarget, WriteRecord
from finetune_operator.lifecycle import asks_for_record, decide
from finetune_operator.observed import Observed, Quarantined, RecordedModel, Run
from finetune_operator.rollout.quarantine import SPOILT
from finetune_operator.rollout.record import (
    LIVE,
    MOST_QUARANTINED,
    is_record,
    read_history,
    read_quarantine,
    record,
    record_with_quarantine,
)
from tests.finetune_operator.samples import (
    ALL_STAGES,
    MANIFEST,
    NEW_MODEL,
    NOON,
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

KEY = f"QUARANTINED.{MANIFEST}"
ENTRY = Quarantined(NEW_MODEL.model_id, "before", "WrongAnswers", "0 of 3 right")


def turning_back(reason: Reason) -> Run:
    """A run whose previous model is in the target again already."""
    rollout = RolloutStatus(
        phase=RolloutPhase.ROLLING_BACK,
        target="deployment/chat",
        target_uid="chat-uid",
        current=NEW_MODEL,
        previous=OLD_MODEL,
        patched_at="2026-03-01T12:00:00Z",
        reason=reason.value,
        message="it said so",
    )
    return a_run(a_status(ALL_STAGES, rollout=rollout, phase=Phase.ROLLING_OUT))


def written(decision: Decision) -> list[dict[str, Any]]:
    return [action.manifest for action in decision.actions if isinstance(action, WriteRecord)]


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        (Reason.MODEL_INTEGRITY, True),
        (Reason.CONTAINER_CRASHED, True),
        (Reason.WRONG_ANSWERS, True),
        (Reason.SERVICE_ERRORS, True),
        (Reason.PROGRESS_DEADLINE_EXCEEDED, True),
        (Reason.CANCELLED, False),
        (Reason.UNSCHEDULABLE, False),
        (Reason.IMAGE_PULL_FAILED, False),
        (Reason.STORE_UNAVAILABLE, False),
        (Reason.FAILED_CREATE, False),
        (Reason.REVERTED_BY_OTHER_MANAGER, False),
    ],
)
def test_a_rollback_that_speaks_against_the_model_is_recorded_and_told(reason, kept):
    recorded = {"MODEL_ID": OLD_MODEL.model_id, "HISTORY": "[]", "deployment": "chat"}
    decision = decide(turning_back(reason), seen(recorded=recorded), later(60))

    assert bool(written(decision)) is kept
    assert (reason in SPOILT) is kept
    rollout = decision.status.rollout
    assert rollout is not None
    assert (KEY in rollout.quarantine) is kept
    assert (KEY in condition(decision, "RolledOut").message) is kept
    if kept:
        (manifest,) = written(decision)
        assert manifest["data"] | {KEY: ""} == recorded | {KEY: ""}
        (entry,) = read_quarantine(manifest)
        assert (entry.model_id, entry.run, entry.reason) == (NEW_MODEL.model_id, "blog", reason.value)


def test_a_first_model_that_fails_makes_a_record_that_names_no_model():
    (manifest,) = written(decide(turning_back(Reason.MODEL_INTEGRITY), seen(), later(60)))

    assert set(manifest["data"]) == {"HISTORY", "deployment", KEY}
    assert is_record(manifest)


def test_what_is_over_is_not_recorded_again():
    run = turning_back(Reason.MODEL_INTEGRITY)
    ended = after(run, decide(run, seen(), later(60)))

    assert ended.status.phase is Phase.ROLLED_BACK
    assert decide(ended, seen(), later(70)).actions == ()


@pytest.mark.parametrize("rollout", [a_rollout(), a_rollout(mode="Publish")])
def test_an_identical_run_waits_with_the_cause_and_the_command_and_changes_nothing(rollout):
    run = a_run(a_status(ALL_STAGES), rollout=rollout)

    decision = decide(run, seen(quarantine=(ENTRY,)), NOON)

    told = condition(decision, "RolledOut")
    assert decision.actions == ()
    assert (told.status, told.reason) == ("Unknown", Reason.QUARANTINED)
    assert 'run "before" ended WrongAnswers with it (0 of 3 right)' in told.message
    assert condition(decision, "Stalled").status == "True"
    assert decision.requeue_after == 30
    command = shlex.split(told.message.split("then run: ")[1])
    assert command[:4] == ["kubectl", "patch", "configmap", "chat-model"]
    assert json.loads(command[-1]) == {"data": {KEY: None}}


def by_schedule(status: FineTuneRunStatus, **rollout: Any) -> Run:
    return replace(a_run(status, rollout=a_rollout(**rollout)), by_schedule=True)


@pytest.mark.parametrize("mode", ["Automatic", "Publish"])
def test_an_identical_run_of_a_schedule_ends_with_the_command_so_that_the_schedule_goes_on(mode):
    decision = decide(by_schedule(a_status(ALL_STAGES), mode=mode), seen(quarantine=(ENTRY,)), NOON)

    told = condition(decision, "RolledOut")
    assert (decision.status.phase, decision.actions) == (Phase.NOT_PROMOTED, ())
    assert (told.status, told.reason) == ("False", Reason.QUARANTINED)
    assert json.loads(shlex.split(told.message.split("then run: ")[1])[-1]) == {"data": {KEY: None}}
    assert decision.requeue_after is None


def test_a_row_of_a_schedule_that_meets_quarantine_half_way_ends_and_says_what_serves_the_model():
    rollout = RolloutStatus(
        phase=RolloutPhase.PREFLIGHT, target="deployment/chat", current=NEW_MODEL, done=["chat-eu"]
    )

    decision = decide(by_schedule(a_status(ALL_STAGES, rollout=rollout)), seen(quarantine=(ENTRY,)), NOON)

    assert decision.status.phase is Phase.NOT_PROMOTED
    assert decision.status.rollout is not None
    assert decision.status.rollout.phase is RolloutPhase.ROLLED_BACK
    assert "chat-eu serves it already" in decision.status.rollout.message


def test_a_run_of_a_schedule_that_a_person_approved_waits_for_that_person():
    run = by_schedule(a_status(ALL_STAGES), mode="Manual", approved=True)

    assert decide(run, seen(quarantine=(ENTRY,)), NOON).status.phase is Phase.ROLLING_OUT


def test_whoever_approves_is_told_and_approval_alone_lifts_nothing():
    asked = a_run(a_status(ALL_STAGES), rollout=a_rollout(mode="Manual"))
    approved = a_run(a_status(ALL_STAGES), rollout=a_rollout(mode="Manual", approved=True))

    waiting = decide(asked, seen(quarantine=(ENTRY,)), NOON)
    held = decide(approved, seen(quarantine=(ENTRY,)), NOON)

    assert waiting.status.phase is Phase.AWAITING_APPROVAL
    assert "mind that" in condition(waiting, "RolledOut").message
    assert KEY in condition(waiting, "RolledOut").message
    assert condition(held, "RolledOut").reason == Reason.QUARANTINED
    assert held.actions == ()


def test_it_goes_on_once_the_entry_is_gone():
    run = a_run(a_status(ALL_STAGES))
    waiting = after(run, decide(run, seen(quarantine=(ENTRY,)), NOON))

    recorded = decide(waiting, seen(), later(30))
    patched = decide(after(waiting, recorded), seen(), later(31))

    assert [type(action) for action in patched.actions] == [PatchTarget]


@pytest.mark.parametrize(
    "observed",
    [
        seen(quarantine=(Quarantined("sha256:another"),)),
        seen(target=a_deployment(NEW_MODEL), quarantine=(ENTRY,)),  # somebody put it there on purpose
    ],
)
def test_other_models_and_one_that_is_served_already_are_not_kept_back(observed: Observed):
    decision = decide(a_run(a_status(ALL_STAGES)), observed, NOON)

    assert condition(decision, "RolledOut").reason == Reason.PROGRESSING


def test_other_models_going_live_leave_the_quarantine_and_one_that_goes_live_ends_its_own():
    other = Quarantined("sha256:other", "x", "ModelIntegrity", "bad")
    history = (RecordedModel(OLD_MODEL, "before"),)

    manifest = record(a_run(), "chat", NEW_MODEL, OLD_MODEL, LIVE, history, (ENTRY, other)).manifest

    assert read_quarantine(manifest) == (other,)
    assert [entry.model for entry in read_history(manifest)] == [NEW_MODEL, OLD_MODEL]


@pytest.mark.parametrize("value", ["", "a person's note", "[]", "null", '{"run": 7}'])
def test_an_entry_counts_whatever_it_says(value):
    (entry,) = read_quarantine({"data": {KEY: value}})

    assert entry.model_id == NEW_MODEL.model_id


def test_the_record_stays_small_and_keeps_the_newest():
    recorded = {f"QUARANTINED.{number:064}": "{}" for number in range(MOST_QUARANTINED + 20)}

    manifest = record_with_quarantine(a_run(), "chat", recorded, ENTRY).manifest

    entries = read_quarantine(manifest)
    assert len(entries) == MOST_QUARANTINED
    assert ENTRY in entries


@pytest.mark.parametrize("phase", [phase for phase in RolloutPhase if phase is not RolloutPhase.SUCCEEDED])
def test_the_record_is_read_as_long_as_a_rollout_may_write_it(phase):
    rollout = RolloutStatus(phase=phase, current=NEW_MODEL)

    assert asks_for_record(a_run(a_status(ALL_STAGES, rollout=rollout, phase=Phase.ROLLING_OUT)))
