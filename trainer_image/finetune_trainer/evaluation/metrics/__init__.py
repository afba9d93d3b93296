"""The numbers of an evaluation, one file each. A new one is a file and a line in METRICS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Example
from finetune_contract.run_spec import GateMetric
from finetune_trainer.evaluation.answers import Answer
from finetune_trainer.evaluation.metrics import answer_f1, answer_recall, refusal_accuracy, stop_rate


@dataclass(frozen=True)
class Metric:
    """A score from 0 to 1 for an answer, and the questions that it speaks of."""

    title: str
    applies: Callable[[Example], bool]
    score: Callable[[Example, Answer], float]


@dataclass(frozen=True)
class Measured:
    """The mean of a metric; None when no question asks for it."""

    value: float | None
    count: int


METRICS: dict[GateMetric, Metric] = {
    GateMetric.ANSWER_RECALL: Metric("The fact is in the answer", answer_recall.applies, answer_recall.score),
    GateMetric.ANSWER_F1: Metric("Words shared with the expected answer", answer_f1.applies, answer_f1.score),
    GateMetric.REFUSAL_ACCURACY: Metric(
        "Says that it does not know when it cannot", refusal_accuracy.applies, refusal_accuracy.score
    ),
    GateMetric.STOP_RATE: Metric("Ends by itself", stop_rate.applies, stop_rate.score),
}


def measure(metric: Metric, answered: Sequence[tuple[Example, Answer]]) -> Measured:
    """The mean score over the questions that the metric speaks of."""
    scores = [metric.score(example, answer) for example, answer in answered if metric.applies(example)]
    return Measured(sum(scores) / len(scores) if scores else None, len(scores))
