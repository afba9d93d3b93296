"""Share of the answers that end by themselves before the limit."""

from __future__ import annotations

from finetune_contract.artifacts import Example
from finetune_trainer.evaluation.answers import Answer


def applies(example: Example) -> bool:
    """Every question."""
    return True


def score(example: Example, answer: Answer) -> float:
    """1 when the model stopped."""
    return float(answer.stopped)
