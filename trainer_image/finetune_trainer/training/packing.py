"""Which examples are trained together, and how they lie side by side without padding.

A micro-batch is one long row of segments. A segment is one example, or several whose prompts begin alike (questions
about the same sources): the shared beginning then lies there once and each continuation sees only its own past. The
gradients are those of the examples trained one by one. Pure Python; must not know torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from finetune_trainer.training.encoding import EncodedExample

LONGEST_FAMILY = 4
"""Examples in one segment at most: attention over a segment grows with the square of its length."""
SHARED_SHARE = 0.5
"""Examples share a segment when this part of the shorter one's tokens is a common beginning."""


@dataclass(frozen=True)
class Segment:
    """Tokens that may see each other, as a tree: each token's past is the path to the root."""

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    """Position of the token in its own example."""
    paths: tuple[tuple[int, ...], ...]
    """For every example the places of its tokens in this segment."""
    label_places: tuple[int, ...]
    """Places that predict an answer token."""
    labels: tuple[int, ...]
    """The answer tokens that they predict, example after example."""
    answer_lengths: tuple[int, ...]
    """How many of them are each example's."""

    @property
    def is_plain(self) -> bool:
        """One example: ordinary causal attention."""
        return len(self.paths) == 1

    def __len__(self) -> int:
        return len(self.token_ids)


def common_beginning(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading tokens are equal."""
    count = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        count += 1
    return count


def build_segment(examples: Sequence[EncodedExample]) -> Segment:
    """A tree of examples with a common beginning."""
    token_ids: list[int] = []
    positions: list[int] = []
    paths: list[tuple[int, ...]] = []
    places: list[int] = []
    labels: list[int] = []
    children: dict[tuple[int, int], int] = {}
    for example in examples:
        path: list[int] = []
        parent = -1
        for position, token in enumerate(example.token_ids):
            place = children.get((parent, token))
            if place is None:
                place = children[parent, token] = len(token_ids)
                token_ids.append(token)
                positions.append(position)
            path.append(place)
            parent = place
        first_label = len(example.prompt_ids)
        places += path[first_label - 1 : -1]
        labels += example.answer_ids
        paths.append(tuple(path))
    lengths = tuple(len(example.answer_ids) for example in examples)
    return Segment(tuple(token_ids), tuple(positions), tuple(paths), tuple(places), tuple(labels), lengths)


def build_segments(examples: Sequence[EncodedExample]) -> tuple[Segment, ...]:
    """Segments of a micro-batch; neighbours in token order that begin alike are put together."""
    families: list[list[EncodedExample]] = []
    for example in sorted(examples, key=lambda example: (example.token_ids, example.id)):
        if families and len(families[-1]) < LONGEST_FAMILY and _is_kin(families[-1][0], example):
            families[-1].append(example)
        else:
            families.append([example])
    return tuple(build_segment(family) for family in families)


@dataclass(frozen=True)
class TrainingPlan:
    """Every step's examples, from the rows and the seed alone: a resumed run finds its place by the step number.

    The dataset orders its rows so that each beginning of them is a good mixture: a run that is shorter than one
    epoch takes the first ones.
    """

    rows: tuple[EncodedExample, ...]
    epochs: float
    effective_batch_size: int
    micro_batch_size: int
    max_steps: int
    seed: int

    @property
    def total_steps(self) -> int:
        """Optimizer steps in all; at least one."""
        steps = max(1, round(len(self.rows) * self.epochs / self.effective_batch_size))
        return min(steps, self.max_steps) if self.max_steps else steps

    @cached_property
    def used_rows(self) -> tuple[EncodedExample, ...]:
        """The rows that are ever trained."""
        return self.rows[: self.total_steps * self.effective_batch_size]

    def step_examples(self, step: int) -> list[EncodedExample]:
        """Examples of step 0, 1, ...: consecutive rows of the shuffled epochs."""
        first = step * self.effective_batch_size
        batch: list[EncodedExample] = []
        while len(batch) < self.effective_batch_size:
            epoch, place = divmod(first + len(batch), len(self.used_rows))
            order = self._epoch_order(epoch)
            batch += [
                self.used_rows[index]
                for index in order[place : place + self.effective_batch_size - len(batch)]
            ]
        return batch

    def step_micro_batches(self, step: int) -> list[tuple[Segment, ...]]:
        """The step's examples in micro-batches of like token order."""
        examples = sorted(self.step_examples(step), key=lambda example: (example.token_ids, example.id))
        pieces = math.ceil(len(examples) / self.micro_batch_size)
        return [
            build_segments(examples[piece * self.micro_batch_size : (piece + 1) * self.micro_batch_size])
            for piece in range(pieces)
        ]

    def _epoch_order(self, epoch: int) -> list[int]:
        """A permutation in which examples that begin alike lie together in small families."""
        order = random.Random(f"{self.seed}/{epoch}")  # noqa: S311 - an order, not a secret
        indexes = list(range(len(self.used_rows)))
        order.shuffle(indexes)
        kin: list[list[int]] = []
        by_tokens = sorted(indexes, key=lambda index: self.used_rows[index].token_ids)
        for index in by_tokens:
            if kin and _is_kin(self.used_rows[kin[-1][0]], self.used_rows[index]):
                kin[-1].append(index)
            else:
                kin.append([index])
        families: list[list[int]] = []
        for members in kin:
            order.shuffle(members)
            families += [
                members[start : start + LONGEST_FAMILY] for start in range(0, len(members), LONGEST_FAMILY)
            ]
        order.shuffle(families)
        return [index for family in families for index in family]


def _is_kin(first: EncodedExample, second: EncodedExample) -> bool:
    shorter = min(len(first), len(second))
    return common_beginning(first.prompt_ids, second.prompt_ids) >= SHARED_SHARE * shorter
