"""Keys that most of a row sees, spread over copies of them. For attention's kernel. Must not know the model.

On its way back the kernel makes the gradients of a block of keys in one place, one asking block after the other. The
few tokens that all examples begin with are seen by the whole row: their block took a hundred turns where others take
six, and the rest of the GPU waited. So such tokens stand behind the row some times over, and each asking block sees
them in one of these copies. Their gradients are the sum over the copies.

With many heads of keys there are enough blocks to keep a GPU busy beside the longest one, and nothing is spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune_trainer.training.host_copies import sent

SLOTS = 128
"""Tokens of a row that are spread, at most. Whole blocks of the kernel's mask; a row has at least as many tokens."""
COPIES = 8
SEEN_LONG = 1024
"""A token that as many tokens behind it see is spread."""
MANY_HEADS = 16
"""Of keys: from so many on nothing is spread. In a row of 7,000 tokens a block of 64 is seen six times on average and
the longest one 112 times. With 16 heads that is 80 turns for each of an H200's 132 processors, with 4 only 20."""


@dataclass(frozen=True)
class SpreadKeys:
    """The row's keys, (T,), and behind them the copies, (COPIES * SLOTS,), or none."""

    slots: Tensor
    """(SLOTS,), all different: which tokens stand in a copy. Some are there to fill it up, and nobody sees these.
    (0,) where nothing is spread."""
    places: Tensor
    """Of every key, its place in the row."""
    copies: Tensor
    """Of every key, the number of its copy; -1 where it stands in the row."""
    ends: Tensor
    """Of every key, the place behind the last token that sees it. Nobody sees a spread token where it stands."""

    @property
    def row_tokens(self) -> int:
        """T"""
        return len(self.places) - COPIES * len(self.slots)


def spread_keys(ends: Sequence[int], device: torch.device, heads: int = 1) -> SpreadKeys:
    """Spread the tokens that are seen longest.

    Args:
        ends: of every token, the place behind the last one that sees it; whole blocks of them.
        heads: of keys.
    """
    if heads >= MANY_HEADS:
        return SpreadKeys(
            slots=torch.zeros(0, dtype=torch.long, device=device),
            places=sent(range(len(ends)), device),
            copies=sent([-1] * len(ends), device),
            ends=sent(ends, device),
        )
    long = sorted((place - end, place) for place, end in enumerate(ends) if end - place > SEEN_LONG)
    spread = {place: ends[place] for _, place in long[:SLOTS]}
    fillers = (place for place in range(len(ends)) if place not in spread)
    slots = [*spread, *(next(fillers) for _ in range(SLOTS - len(spread)))]
    left = [place if place in spread else end for place, end in enumerate(ends)]
    copied = [spread.get(place, 0) for place in slots]
    return SpreadKeys(
        slots=sent(slots, device),
        places=sent([*range(len(ends)), *slots * COPIES], device),
        copies=sent([-1] * len(ends) + [copy for copy in range(COPIES) for _ in slots], device),
        ends=sent([*left, *copied * COPIES], device),
    )


def copy_of_block(block: Tensor) -> Tensor:
    """Which copy an asking block sees; its neighbours see others."""
    return block % COPIES


def with_copies(rows: Tensor, slots: Tensor) -> Tensor:
    """Keys or values of the row with the copies behind them.

    Args:
        rows: (1, heads, T, width)
    Returns:
        (1, heads, T + COPIES * SLOTS, width); the rows themselves where nothing is spread.
    """
    if not slots.shape[0]:
        return rows
    found: Tensor = _WithCopies.apply(rows, slots)
    return found


class _WithCopies(torch.autograd.Function):
    """Written out, for the gradient of an index is summed in whatever order the GPU likes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        return torch.cat([rows, rows[:, :, slots].repeat(1, 1, COPIES, 1)], dim=2)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        (slots,) = ctx.saved_tensors
        count = slots.shape[0]
        own, copies = given[0].tensor_split([given[0].shape[2] - COPIES * count], dim=2)
        copies = copies.reshape(*own.shape[:2], COPIES, count, own.shape[3])
        added = copies.sum(2) + own[:, :, slots]
        return own.index_copy(2, slots, added), None
