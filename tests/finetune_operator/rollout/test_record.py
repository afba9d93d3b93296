"""The record of a target's model, and the mode that writes nothing else."""

from __future__ import annotations

import pytest

from finetune_contract.run_status import ModelPointer, Phase, Reason, RolloutPhase, RolloutStatus
from finetune_operator.actions import WriteRecord
from finetune_operator.lifecycle import asks_for_record, asks_for_target, decide, rollout_targets
from finetune_operator.observed import Observed, RecordedModel, ServedModel
from finetune_operator.rollout.record import (
    MOST_MODELS,
    PUBLISHED,
    is_record,
    read_history,
    record,
    record_name,
)
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
        assert rollout_targets(run) == ()

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


def model(letter: str) -> ModelPointer:
    return ModelPointer(
        uri=f"s3://models/{letter}", manifest_sha256=letter * 64, model_id=f"sha256:{letter * 64}"
    )


def listed(*letters: str) -> tuple[RecordedModel, ...]:
    return tuple(RecordedModel(model(letter), f"run-{letter}") for letter in letters)


def history_after(
    current: str, previous: str | None, history: tuple[RecordedModel, ...]
) -> list[tuple[str, str]]:
    before = model(previous) if previous else None
    written = record(a_run(), "chat", model(current), before, "Live", history)
    return [(entry.model.manifest_sha256[0], entry.run) for entry in read_history(written.manifest)]


@pytest.mark.parametrize(
    ("current", "previous", "history", "expected"),
    [
        ("a", None, (), [("a", "run")]),
        ("b", "a", (), [("b", "run"), ("a", "")]),
        ("c", "b", ("b", "a"), [("c", "run"), ("b", "run-b"), ("a", "run-a")]),
        ("c", "b", ("c", "b", "a"), [("c", "run"), ("b", "run-b"), ("a", "run-a")]),
        ("a", "b", ("b", "a"), [("a", "run"), ("b", "run-b")]),
        ("d", "a", ("c", "b", "a"), [("d", "run"), ("a", "run-a"), ("c", "run-c"), ("b", "run-b")]),
    ],
    ids=["first", "unrecorded before", "in turn", "written twice", "back again", "another put in by hand"],
)
def test_the_record_lists_what_was_live_newest_first_and_each_model_once(
    current, previous, history, expected
):
    found = history_after(current, previous, listed(*history))

    assert [(letter, run if run != a_run().name else "run") for letter, run in found] == expected


def test_the_record_does_not_grow_for_ever():
    many = tuple(
        RecordedModel(ModelPointer(uri="s3://x", manifest_sha256=f"{n:064d}", model_id=f"sha256:{n:064d}"))
        for n in range(30)
    )

    assert len(history_after("a", None, many)) == MOST_MODELS


@pytest.mark.parametrize("text", ["", "no JSON", "{}", "[1]", '["x"]', '[{"MODEL_ID": 3}]'])
def test_a_history_that_somebody_spoilt_stops_nothing(text):
    found = read_history({"data": {"HISTORY": text}})

    assert record(a_run(), "chat", NEW_MODEL, None, "Live", found).manifest["kind"] == "ConfigMap"


def test_only_what_the_operator_wrote_is_a_record():
    ours = dict(record(a_run(), "chat", NEW_MODEL, None, "Live").manifest)

    assert is_record(ours)
    assert not is_record({**ours, "kind": "Secret"})
    assert not is_record({**ours, "metadata": {"name": "chat-model"}})
    assert not is_record({**ours, "data": {}})


def test_what_is_on_record_is_looked_up_just_before_it_is_written():
    verifying = a_status(
        ALL_STAGES,
        rollout=RolloutStatus(phase=RolloutPhase.VERIFYING, target="deployment/chat", current=NEW_MODEL),
    )

    assert asks_for_record(a_run(verifying))
    assert asks_for_record(a_run(a_status(ALL_STAGES), rollout=PUBLISH))
    assert not asks_for_record(a_run(rollout=PUBLISH))
    assert asks_for_record(a_run(a_status(ALL_STAGES))), "or before the rollout begins"
    assert not asks_for_record(a_run(a_status(ALL_STAGES, evaluation=None))), (
        "not in every pass of the evaluation"
    )
    assert not asks_for_record(a_run(a_status(ALL_STAGES), rollout={"mode": "None"}))


def test_the_record_outlives_its_run_and_writing_it_twice_changes_nothing():
    run = a_run()

    first = record(run, "chat", NEW_MODEL, None, PUBLISHED)

    assert "ownerReferences" not in first.manifest["metadata"]  # type: ignore[operator]
    assert first == record(run, "chat", NEW_MODEL, None, PUBLISHED)


def test_the_name_of_the_record_is_always_a_valid_one():
    assert record_name("chat") == "chat-model"
    assert len(record_name("x" * 253)) == 253
