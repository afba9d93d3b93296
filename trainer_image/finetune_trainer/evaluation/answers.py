"""What a model said to a question. Pure values; metrics, gates and report share them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Example
from finetune_contract.run_spec import ExampleKind


@dataclass(frozen=True)
class Answer:
    """One model's answer to one question."""

    text: str
    stopped: bool
    """The model ended by itself, before the limit."""


@dataclass(frozen=True)
class AnswerPair:
    """A question with what both models said."""

    example: Example
    base: Answer
    new: Answer


def choose_questions(examples: Sequence[Example], limit: int) -> list[Example]:
    """At most `limit` questions, in turn from each kind, so that every kind is measured. Same rows, same choice."""
    by_kind = {
        kind: sorted((e for e in examples if e.kind is kind), key=lambda e: e.id) for kind in ExampleKind
    }
    queues = [queue for queue in by_kind.values() if queue]
    chosen: list[Example] = []
    for turn in range(max((len(queue) for queue in queues), default=0)):
        chosen += [queue[turn] for queue in queues if turn < len(queue)]
    return chosen[:limit]


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share that was seen in `count` tries."""
    if count == 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)
