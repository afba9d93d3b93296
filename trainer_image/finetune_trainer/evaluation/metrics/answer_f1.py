"""Harmonic mean of precision and recall over words, as SQuAD measures answers. Long-winded answers lose."""

from __future__ import annotations

from collections import Counter

from finetune_contract.answer_text import words
from finetune_contract.artifacts import Example
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.evaluation.answers import Answer

_ARTICLES = frozenset({"a", "an", "the"})


def applies(example: Example) -> bool:
    """All but refusals, whose words are always the same."""
    return example.kind is not ExampleKind.REFUSAL


def score(example: Example, answer: Answer) -> float:
    """1 when both have the same words."""
    expected = Counter(word for word in words(example.answer) if word not in _ARTICLES)
    given = Counter(word for word in words(answer.text) if word not in _ARTICLES)
    shared = sum((expected & given).values())
    if not shared:
        return float(not expected and not given)
    precision, recall = shared / sum(given.values()), shared / sum(expected.values())
    return 2 * precision * recall / (precision + recall)
