"""A model that is clearly worse than the live one does not take its place by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_contract.run_status import EvaluationStatus, MetricStatus, ModelPointer, Phase, Reason
from finetune_operator.lifecycle import decide
from finetune_operator.observed import RecordedModel, Run
from finetune_operator.rollout.record import PUBLISHED, read_history, record
from tests.finetune_operator.samples import (
    ALL_STAGES,
    NEW_MODEL,
    NOON,
    OLD_MODEL,
    a_deployment,
    a_rollout,
    a_run,
    a_status,
    condition,
    seen,
)

GATES = {"gates": [{"metric": "answer_recall", "minimum": 0.2}]}


def judged(recall: str, **rollout: Any) -> Run:
    """A run whose model passed its gates with so much recall."""
    metrics = [MetricStatus(name="answer_recall", new=recall), MetricStatus(name="stop_rate", new="0.1")]
    evaluation = EvaluationStatus(passed=True, gate="passed", metrics=metrics)
    status = a_status(ALL_STAGES).model_copy(update={"evaluation": evaluation})
    return a_run(status, rollout=a_rollout(**rollout), evaluation=GATES)


def live(recall: float = 0.9, model: ModelPointer = OLD_MODEL) -> RecordedModel:
    return RecordedModel(model, "before", (("answer_recall", recall), ("stop_rate", 1.0)))


@pytest.mark.parametrize(
    ("recall", "rollout", "history", "held_back"),
    [
        ("0.61", {}, (live(),), True),
        ("0.76", {}, (live(),), False),
        ("0.95", {}, (live(),), False),
        ("0.61", {"maxDrop": 0.3}, (live(),), False),
        ("0.61", {"maxDrop": 1}, (live(),), False),
        ("0.61", {}, (), False),
        ("0.61", {}, (RecordedModel(OLD_MODEL, "before"),), False),
        ("0.61", {}, (live(model=NEW_MODEL),), False),
        ("", {}, (live(),), False),
    ],
)
def test_only_a_clear_drop_of_a_gates_metric_below_the_live_model_holds_a_model_back(
    recall: str, rollout: dict[str, Any], history: tuple[RecordedModel, ...], held_back: bool
):
    decision = decide(judged(recall, **rollout), seen(history=history), NOON)

    assert (decision.status.phase is Phase.NOT_PROMOTED) == held_back
    assert decision.actions == ()


def test_the_words_name_both_numbers_and_the_live_model():
    decision = decide(judged("0.61"), seen(history=(live(),)), NOON)

    told = condition(decision, "RolledOut")
    assert told.reason == Reason.BELOW_LIVE_MODEL
    assert told.message.startswith(
        "answer_recall 0.61 is more than 0.15 (rollout.maxDrop) below the 0.9 of "
        f'{OLD_MODEL.model_id}, live by run "before"; nothing was changed'
    )


def test_a_model_that_is_no_longer_live_is_no_measure():
    decision = decide(judged("0.61"), seen(target=a_deployment(NEW_MODEL), history=(live(),)), NOON)

    assert decision.status.phase is Phase.ROLLING_OUT


def test_a_person_who_approves_is_told_and_decides():
    waiting = decide(judged("0.61", mode="Manual"), seen(history=(live(),)), NOON)
    approved = decide(judged("0.61", mode="Manual", approved=True), seen(history=(live(),)), NOON)

    assert waiting.status.phase is Phase.AWAITING_APPROVAL
    assert "mind that answer_recall 0.61 is more than 0.15" in condition(waiting, "RolledOut").message
    assert approved.status.phase is Phase.ROLLING_OUT


def test_what_is_published_is_compared_with_what_was_published_last():
    run = judged("0.61", mode="Publish")

    decision = decide(run, seen(target=None, history=(live(),)), NOON)

    assert decision.status.phase is Phase.NOT_PROMOTED


def test_the_metrics_of_a_model_are_on_its_record_and_a_record_without_them_is_read():
    written: Any = record(judged("0.61"), "chat", NEW_MODEL, OLD_MODEL, PUBLISHED).manifest
    without = json.dumps(
        [{"MODEL_ID": "sha256:a", "run": "x"}, {"MODEL_ID": "b", "metrics": {"recall": "?"}}]
    )

    assert read_history(written)[0].metrics == (("answer_recall", 0.61), ("stop_rate", 0.1))
    assert [entry.metrics for entry in read_history({"data": {"HISTORY": without}})] == [(), ()]
