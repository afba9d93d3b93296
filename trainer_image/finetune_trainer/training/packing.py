"""Which examples are trained together, and how they lie side by side without padding.

A micro-batch is one row of tokens, a tree: what several examples begin with alike (the template, the instruction, the
same sources) lies there once, and each example sees its own path through the tree and nothing else. The gradients are
those of the examples trained one by one. Pure Python; must not know torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.training.encoding import EncodedExample

LARGEST_FAMILY = 4
"""Examples about the same sources that follow each other in an epoch at most: a step should see different things."""
ORDERS_KEPT = 2
"""A step may end one epoch and begin the next."""
KINSHIP = 0.7
"""Examples are about the same sources when this part of the shorter prompt is their common beginning."""


@dataclass(frozen=True)
class Branch:
    """What one example adds to the row: the tokens from `start` to `end`, behind those at `past`."""

    start: int
    end: int
    past: tuple[int, ...]
    """Places of the tokens before, from the root on."""

    @property
    def path(self) -> tuple[int, ...]:
        """Places of all tokens of the example."""
        return (*self.past, *range(self.start, self.end))


@dataclass(frozen=True)
class PackedBatch:
    """A micro-batch as one row. Every token belongs to the branch of the first example that has it."""

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    """Position of the token in its own examples."""
    branches: tuple[Branch, ...]
    """One an example; together they cover the row in order."""
    label_places: tuple[int, ...]
    """Places that predict an answer token."""
    labels: tuple[int, ...]
    """The answer tokens that they predict, example after example."""
    answer_lengths: tuple[int, ...]
    """How many of them are each example's."""

    @property
    def example_tokens(self) -> int:
        """Tokens of the examples, those in common counted for each."""
        return sum(len(branch.past) + branch.end - branch.start for branch in self.branches)

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


def pack(examples: Sequence[EncodedExample]) -> PackedBatch:
    """The row of these examples. In token order, an example's longest common beginning is that with its neighbour."""
    token_ids: list[int] = []
    positions: list[int] = []
    branches: list[Branch] = []
    places: list[int] = []
    labels: list[int] = []
    lengths: list[int] = []
    before: tuple[int, ...] = ()
    path: tuple[int, ...] = ()
    for example in sorted(examples, key=lambda example: (example.token_ids, example.id)):
        tokens = example.token_ids
        shared = common_beginning(before, tokens)
        start = len(token_ids)
        token_ids += tokens[shared:]
        positions += range(shared, len(tokens))
        branch = Branch(start, len(token_ids), path[:shared])
        before, path = tokens, branch.path
        branches.append(branch)
        places += path[len(example.prompt_ids) - 1 : -1]
        labels += example.answer_ids
        lengths.append(len(example.answer_ids))
    return PackedBatch(
        tuple(token_ids), tuple(positions), tuple(branches), tuple(places), tuple(labels), tuple(lengths)
    )


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

    @classmethod
    def of(cls, rows: Sequence[EncodedExample], training: TrainingSpec) -> TrainingPlan:
        """The plan of a run with these settings."""
        return cls(
            rows=tuple(rows),
            epochs=training.epochs,
            effective_batch_size=training.effective_batch_size,
            micro_batch_size=training.micro_batch_size,
            max_steps=training.max_steps,
            seed=training.seed,
        )

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

    def step_micro_batches(self, step: int) -> list[PackedBatch]:
        """The step's examples; those with much in common share a micro-batch."""
        examples = sorted(self.step_examples(step), key=lambda example: (example.token_ids, example.id))
        size = self.micro_batch_size
        return [
            pack(examples[piece * size : (piece + 1) * size])
            for piece in range(math.ceil(len(examples) / size))
        ]

    @cached_property
    def _orders(self) -> dict[int, list[int]]:
        """Of the epochs that were asked for last."""
        return {}

    def _epoch_order(self, epoch: int) -> list[int]:
        """Made once an epoch: it looks at all rows, and a step at a few."""
        if epoch not in self._orders:
            if len(self._orders) == ORDERS_KEPT:
                del self._orders[next(iter(self._orders))]
            self._orders[epoch] = self._new_order(epoch)
        return self._orders[epoch]

    def _new_order(self, epoch: int) -> list[int]:
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
                members[start : start + LARGEST_FAMILY] for start in range(0, len(members), LARGEST_FAMILY)
            ]
        order.shuffle(families)
        return [index for family in families for index in family]


def _is_kin(first: EncodedExample, second: EncodedExample) -> bool:
    shorter = min(len(first.prompt_ids), len(second.prompt_ids))
    return common_beginning(first.prompt_ids, second.prompt_ids) >= KINSHIP * shorter
