"""Share of the questions without an answer on the site that are refused. Refusing too much costs answer_recall."""

from __future__ import annotations

from finetune_contract.artifacts import Example
from finetune_contract.prompt import is_refusal
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.evaluation.answers import Answer


def applies(example: Example) -> bool:
    """Questions that the sources do not answer."""
    return example.kind is ExampleKind.REFUSAL


def score(example: Example, answer: Answer) -> float:
    """1 when the answer says that the site does not know."""
    return float(is_refusal(answer.text))
