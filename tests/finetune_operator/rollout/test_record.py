"""The record of a target's model, and the mode that writes nothing else."""

from __future__ import annotations

from finetune_contract.run_status import Phase, Reason, RolloutPhase, RolloutStatus
from finetune_operator.actions import WriteRecord
from finetune_operator.lifecycle import asks_for_target, decide, rollout_target
from finetune_operator.observed import Observed, ServedModel
from finetune_operator.rollout.record import PUBLISHED, record, record_name
from tests.finetune_operator.samples import (
    ALL_STAGES,
    NEW_MODEL,
    NOON,
    OLD_MODEL,
    a_deployment,
    a_run,
    a_status,
    after,
    at,
    condition,
    later,
    seen,
)

PUBLISH = {"mode": "Publish", "target": {"deployment": {"name": "chat"}}}


def test_publishing_writes_the_record_and_nothing_else_and_ends_the_run():
    run = a_run(a_status(ALL_STAGES), rollout=PUBLISH)

    decision = decide(run, Observed(), NOON)
    at_rest = decide(after(run, decision), Observed(), later(60))

    (written,) = decision.actions
    assert isinstance(written, WriteRecord)
    assert written.manifest["data"]["MODEL_ID"] == NEW_MODEL.model_id  # type: ignore[index]
    assert written.manifest["data"]["state"] == PUBLISHED  # type: ignore[index]
    assert decision.status.phase is Phase.SUCCEEDED
    assert decision.status.rollout is None
    assert condition(decision, "RolledOut").reason == Reason.PUBLISHED
    assert "ConfigMap chat-model" in condition(decision, "RolledOut").message
    assert at_rest.actions == ()


def test_publishing_neither_looks_at_the_target_nor_needs_it():
    for status in (None, a_status(ALL_STAGES)):
        run = a_run(status, rollout=PUBLISH)
        assert not asks_for_target(run)
        assert rollout_target(run) is None

    started = decide(a_run(rollout=PUBLISH), Observed(), NOON)

    assert len(started.actions) == 1


def test_a_model_that_went_live_is_recorded_with_the_one_before_it():
    rollout = RolloutStatus(
        phase=RolloutPhase.VERIFYING,
        target="deployment/chat",
        target_uid="chat-uid",
        current=NEW_MODEL,
        previous=OLD_MODEL,
        patched_at=at(0),
        patched_generation=3,
    )
    asked = seen(target=a_deployment(NEW_MODEL), served=(ServedModel("chat-1", NEW_MODEL.model_id),))

    decision = decide(a_run(a_status(ALL_STAGES, rollout=rollout)), asked, later(5))

    (written,) = decision.actions
    assert isinstance(written, WriteRecord)
    data = written.manifest["data"]
    assert isinstance(data, dict)
    assert (data["MODEL_URI"], data["PREVIOUS_MODEL_URI"]) == (NEW_MODEL.uri, OLD_MODEL.uri)
    assert data["state"] == "Live"


def test_the_record_outlives_its_run_and_writing_it_twice_changes_nothing():
    run = a_run()

    first = record(run, "chat", NEW_MODEL, None, PUBLISHED)

    assert "ownerReferences" not in first.manifest["metadata"]  # type: ignore[operator]
    assert first == record(run, "chat", NEW_MODEL, None, PUBLISHED)


def test_the_name_of_the_record_is_always_a_valid_one():
    assert record_name("chat") == "chat-model"
    assert len(record_name("x" * 253)) == 253
