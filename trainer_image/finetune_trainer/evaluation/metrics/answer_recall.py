"""Share of the strings that carry the fact which stand in the answer."""

from __future__ import annotations

from finetune_contract.answer_text import contains
from finetune_contract.artifacts import Example
from finetune_trainer.evaluation.answers import Answer


def applies(example: Example) -> bool:
    """Questions with such strings."""
    return bool(example.must_contain)


def score(example: Example, answer: Answer) -> float:
    """1 when all are there."""
    found = sum(contains(answer.text, wanted) for wanted in example.must_contain)
    return found / len(example.must_contain)
