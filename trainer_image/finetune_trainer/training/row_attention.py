"""Attention over a packed row in one kernel: flex attention on a GPU, and the same functions written out elsewhere.

The row is a tree in the order of its walk, so what stands below a token is the stretch that follows it: a token sees
those before it whose stretch it lies in. One number a token says all of the mask. Must not know the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from finetune_trainer.training.host_copies import sent
from finetune_trainer.training.packing import PackedBatch

NAME = "finetune_row"
BLOCK = 128
"""Rows for the kernel are filled up to whole blocks of so many tokens."""


@dataclass(frozen=True)
class KernelForm:
    """How the kernel is cut for heads of some width."""

    block: int
    """Tokens of a block of the mask. With finer ones the kernel meets fewer tokens of other examples."""
    options: dict[str, int | bool]
    """Its own blocks and warps, as flex attention names them."""


NARROW_HEADS = KernelForm(128, {})
WIDE_HEADS = KernelForm(64, {"bwd_num_warps": 8})
WIDE_FROM = 129
"""Heads of this width and more are wide."""

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class RowMask:
    """What a row's tokens see, for layers that see all and for those with a sliding window."""

    whole: MaskFunction
    sliding: MaskFunction
    whole_blocks: BlockMask | None
    """None where the mask is written out."""
    sliding_blocks: BlockMask | None


def subtree_ends(batch: PackedBatch, padding: int) -> list[int]:
    """For every place of the row, the place behind the last token that sees it. Padding sees itself alone."""
    ends = list(range(1, len(batch) + padding + 1))
    for branch in batch.branches:
        for place in branch.path:
            ends[place] = max(ends[place], branch.end)
    return ends


def row_mask(batch: PackedBatch, padding: int, config: Any, device: torch.device) -> RowMask:
    """The mask of a row with so much padding behind it.

    Args:
        config: of the model; its `sliding_window` matters where a path of the row is longer.
    """
    ends = sent(subtree_ends(batch, padding), device)
    whole = sees_its_path(ends)
    window: int | None = getattr(config, "sliding_window", None)
    longest = max(batch.positions, default=0) + 1
    sliding = whole
    if window is not None and longest > window:
        positions = sent((*batch.positions, *(0,) * padding), device)
        sliding = sees_its_window(ends, positions, window)
    if device.type != "cuda":
        return RowMask(whole, sliding, None, None)
    block = kernel_form(head_width(config)).block
    whole_blocks = path_blocks(ends, whole, block)
    return RowMask(
        whole,
        sliding,
        whole_blocks,
        whole_blocks
        if sliding is whole
        else create_block_mask(sliding, None, None, len(ends), len(ends), device=device, BLOCK_SIZE=block),
    )


def kernel_form(width: int) -> KernelForm:
    """For heads of this width."""
    return WIDE_HEADS if width >= WIDE_FROM else NARROW_HEADS


def head_width(config: Any) -> int:
    """Of one head's queries."""
    width: int | None = getattr(config, "head_dim", None)
    return width or config.hidden_size // config.num_attention_heads


def path_blocks(ends: Tensor, whole: MaskFunction, block: int = BLOCK) -> BlockMask:
    """Which blocks of the row see something of which, and which see all, without looking at single pairs of tokens.

    A block is seen by a later one when one of its tokens is still seen where that one begins, and as a whole when
    each of its tokens is seen to where that one ends. `create_block_mask` finds the same from a table of T x T.

    Args:
        ends: (T,); see `subtree_ends`.
    """
    length = len(ends)
    count = -(-length // block)
    lonely = torch.arange(length + 1, count * block + 1, device=ends.device)
    blocks = torch.cat([ends, lonely]).view(count, block)
    starts = torch.arange(count, device=ends.device) * block
    earlier = starts[None, :] < starts[:, None]
    whole_seen = earlier & (blocks.min(1).values[None, :] >= starts[:, None] + block)
    partly_seen = earlier & (blocks.max(1).values[None, :] > starts[:, None]) & ~whole_seen
    partly_seen |= torch.eye(count, dtype=torch.bool, device=ends.device)
    return BlockMask.from_kv_blocks(
        *_numbers_and_places(partly_seen),
        *_numbers_and_places(whole_seen),
        BLOCK_SIZE=block,
        mask_mod=whole,
        seq_lengths=(length, length),
    )


def _numbers_and_places(table: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks each row of the table names, and which, those first, in the shape that BlockMask asks for."""
    numbers = table.sum(1, dtype=torch.int32)
    places = table.int().argsort(dim=1, descending=True, stable=True).int()
    return numbers[None, None], places[None, None].contiguous()


def sees_its_path(ends: Tensor) -> MaskFunction:
    """A token sees itself and what stands before it on the way from the root."""

    def mask(_batch: Tensor, _head: Tensor, asking: Tensor, seen: Tensor) -> Tensor:
        return (seen <= asking) & (asking < ends[seen])

    return mask


def sees_its_window(ends: Tensor, positions: Tensor, window: int) -> MaskFunction:
    """The same, and no further back than the window, counted in the example and not in the row."""

    def mask(_batch: Tensor, _head: Tensor, asking: Tensor, seen: Tensor) -> Tensor:
        near = positions[asking] - positions[seen] < window
        return (seen <= asking) & (asking < ends[seen]) & near

    return mask


def soft_cap(cap: float) -> ScoreFunction:
    """Scores bent to stay within the cap, as Gemma 2 has them."""

    def bend(score: Tensor, _batch: Tensor, _head: Tensor, _asking: Tensor, _seen: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return bend


def row_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    row: RowMask,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention function in the shape that transformers asks for.

    Args:
        query: (1, heads, T, width); key and value may have fewer heads.
    Returns:
        (1, T, heads, width)
    """
    if query.dtype != value.dtype:
        query, key = query.to(value.dtype), key.to(value.dtype)
    score = None if softcap is None else soft_cap(softcap)
    slides = sliding_window is not None
    blocks = row.sliding_blocks if slides else row.whole_blocks
    if blocks is None:
        mixed = written_out(query, key, value, row.sliding if slides else row.whole, score, scaling)
    else:
        mixed = _kernel()(
            query,
            key,
            value,
            score_mod=score,
            block_mask=blocks,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
            kernel_options=kernel_form(query.shape[3]).options,
        )
    return mixed.transpose(1, 2).contiguous(), None


def written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: MaskFunction,
    score: ScoreFunction | None,
    scaling: float | None,
) -> Tensor:
    """The same with all scores in memory. For machines without the kernel: it has no way back on a CPU."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    places = torch.arange(query.shape[2], device=query.device)
    zero = torch.zeros((), dtype=torch.long, device=query.device)
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[3] ** -0.5)
    if score is not None:
        scores = score(scores, zero, zero, places[:, None], places[None, :])
    hidden = ~mask(zero, zero, places[:, None], places[None, :])
    return scores.float().masked_fill(hidden, float("-inf")).softmax(-1).to(query.dtype) @ value


def register() -> None:
    """Make the function known to transformers under `NAME`, with no mask of its own."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, row_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _kernel() -> Callable[..., Tensor]:
    """Inside a layer that is being compiled the function is part of it; elsewhere it must be compiled by itself."""
    if torch.compiler.is_compiling():
        return flex_attention
    return _compiled_kernel()


@cache
def _compiled_kernel() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False)
