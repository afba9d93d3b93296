"""Counts and lengths of examples by kind: for the report, the log, and whoever plans training time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Example
from finetune_contract.run_spec import ExampleKind


@dataclass(frozen=True)
class KindSummary:
    """One line of the table; lengths are in words, or in what `count` counts."""

    kind: str
    rows: int
    mean_prompt: float
    mean_answer: float
    longest: int
    """Prompt and answer together."""


def count_words(text: str) -> int:
    """Words between blanks; about three quarters of a model's tokens."""
    return len(text.split())


def summarise(examples: Sequence[Example], count: Callable[[str], int] = count_words) -> list[KindSummary]:
    """A line for every kind that occurs, and one for all. Pass a tokenizer's length as `count` for tokens."""
    lengths = {
        example.id: (sum(count(message.content) for message in example.prompt), count(example.answer))
        for example in examples
    }
    groups = [(kind.value, [example for example in examples if example.kind == kind]) for kind in ExampleKind]
    return [
        KindSummary(
            kind=name,
            rows=len(rows),
            mean_prompt=sum(lengths[row.id][0] for row in rows) / len(rows),
            mean_answer=sum(lengths[row.id][1] for row in rows) / len(rows),
            longest=max(sum(lengths[row.id]) for row in rows),
        )
        for name, rows in [*groups, ("all", list(examples))]
        if rows
    ]


def as_table(summaries: Sequence[KindSummary]) -> str:
    """The summary as lines of text."""
    lines = [f"{'kind':12} {'rows':>7} {'prompt':>8} {'answer':>8} {'longest':>8}"]
    lines += [
        f"{entry.kind:12} {entry.rows:7d} {entry.mean_prompt:8.1f} {entry.mean_answer:8.1f} {entry.longest:8d}"
        for entry in summaries
    ]
    return "\n".join(lines)
