"""Attention over a packed row in one kernel: flex attention on a GPU, and the same functions written out elsewhere.

The row is a tree in the order of its walk, so what stands below a token is the stretch that follows it: a token sees
those before it whose stretch it lies in. One number a token says all of the mask. Must not know the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from finetune_trainer.training.host_copies import sent
from finetune_trainer.training.packing import PackedBatch
from finetune_trainer.training.spread_keys import (
    SLOTS,
    SpreadKeys,
    copy_of_block,
    spread_keys,
    with_copies,
)

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


WIDE_FROM = 129
"""Heads of this width and more are wide."""
HOPPER = (9, 0)


def _cut(way: str, **sizes: int) -> dict[str, int | bool]:
    return {f"{way}_{name}": size for name, size in sizes.items()}


NARROW_HEADS = KernelForm(128, {})
WIDE_HEADS = KernelForm(64, {"bwd_num_warps": 8})
NARROW_HEADS_ON_HOPPER = KernelForm(
    128,
    _cut("fwd", BLOCK_M=128, BLOCK_N=64, num_warps=8, num_stages=2)
    | _cut("bwd", BLOCK_M1=32, BLOCK_N1=64, BLOCK_M2=64, BLOCK_N2=32, num_warps=4, num_stages=3),
)
WIDE_HEADS_ON_HOPPER = KernelForm(
    64,
    _cut("fwd", BLOCK_M=64, BLOCK_N=32, num_warps=4, num_stages=2)
    | _cut("bwd", BLOCK_M1=32, BLOCK_N1=32, BLOCK_M2=32, BLOCK_N2=32, num_warps=4, num_stages=1),
)
"""The fastest of sixteen cuts on an H200."""

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class RowKernel:
    """What attention's kernel is told of a row. Its keys are the row's with the spread ones behind."""

    form: KernelForm
    slots: Tensor
    """See `SpreadKeys`."""
    whole: BlockMask
    sliding: BlockMask


@dataclass(frozen=True)
class RowMask:
    """What a row's tokens see, for layers that see all and for those with a sliding window."""

    whole: MaskFunction
    sliding: MaskFunction
    kernel: RowKernel | None
    """None where the mask is written out."""


def subtree_ends(batch: PackedBatch, padding: int) -> list[int]:
    """For every place of the row, the place behind the last token that sees it. Padding sees itself alone."""
    ends = list(range(1, len(batch) + padding + 1))
    for branch in batch.branches:
        for place in branch.path:
            ends[place] = max(ends[place], branch.end)
    return ends


def filled_length(tokens: int) -> int:
    """The length to which a row is filled up: whole blocks, as attention's kernel wants them."""
    return BLOCK * math.ceil(tokens / BLOCK)


def row_mask(batch: PackedBatch, padding: int, config: Any, device: torch.device) -> RowMask:
    """The mask of a row with so much padding behind it.

    Args:
        config: of the model; its `sliding_window` matters where a path of the row is longer.
    """
    ends = subtree_ends(batch, padding)
    on_device = sent(ends, device)
    whole = sees_its_path(on_device)
    window: int | None = getattr(config, "sliding_window", None)
    sliding, positions = whole, None
    if window is not None and max(batch.positions, default=0) >= window:
        positions = sent((*batch.positions, *(0,) * padding), device)
        sliding = sees_its_window(on_device, positions, window)
    kernel: RowKernel | None = None
    if device.type == "cuda":
        form = kernel_form(head_width(config), torch.cuda.get_device_capability(device))
        keys = spread_keys(ends, device, key_heads(config))
        blocks = path_blocks(keys, form.block)
        slid = blocks if positions is None else path_blocks(keys, form.block, positions, window or 0)
        kernel = RowKernel(form, keys.slots, blocks, slid)
    return RowMask(whole, sliding, kernel)


def kernel_form(width: int, capability: tuple[int, int]) -> KernelForm:
    """For heads of this width on a GPU of this kind."""
    if capability == HOPPER:
        return WIDE_HEADS_ON_HOPPER if width >= WIDE_FROM else NARROW_HEADS_ON_HOPPER
    return WIDE_HEADS if width >= WIDE_FROM else NARROW_HEADS


def head_width(config: Any) -> int:
    """Of one head's queries."""
    width: int | None = getattr(config, "head_dim", None)
    return width or config.hidden_size // config.num_attention_heads


def key_heads(config: Any) -> int:
    """Heads of keys and values; queries may have more."""
    heads: int | None = getattr(config, "num_key_value_heads", None)
    return heads or int(config.num_attention_heads)


def path_blocks(
    keys: SpreadKeys, block: int = BLOCK, positions: Tensor | None = None, window: int = 0
) -> BlockMask:
    """Which blocks of the row see something of which, and which see all, without looking at single pairs of tokens.

    A block is seen by a later one when one of its tokens is still seen where that one begins, and as a whole when
    each of its tokens is seen to where that one ends. `create_block_mask` finds the same from a table of all pairs.

    Args:
        positions: of the row's tokens in their examples, where a window leaves less than the path. Then no block is
            known to be seen as a whole.
    """
    length = keys.row_tokens
    count = length // block
    starts = torch.arange(0, length, block, device=keys.ends.device)[:, None]
    places, ends = keys.places[None, length:], keys.ends[None, length:]
    partly_seen, whole_seen = _blocks_of_the_row(keys.ends[:length], starts, block)
    copied = (count, places.shape[1] // block, block)
    some = ((places < starts + block) & (ends > starts)).view(copied).any(-1)
    every = ((places <= starts) & (ends >= starts + block)).view(copied).all(-1)
    number = torch.arange(some.shape[1], device=starts.device) // (SLOTS // block)
    own = number[None, :] == copy_of_block(starts // block)
    partly_seen = torch.cat([partly_seen, own & some & ~every], dim=1)
    whole_seen = torch.cat([whole_seen, own & every], dim=1)
    if positions is not None:
        partly_seen, whole_seen = partly_seen | whole_seen, torch.zeros_like(whole_seen)
    return BlockMask.from_kv_blocks(
        *_numbers_and_places(partly_seen),
        *_numbers_and_places(whole_seen),
        BLOCK_SIZE=block,
        mask_mod=_sees_a_copy(keys, block, positions, window),
        seq_lengths=(length, len(keys.places)),
    )


def _blocks_of_the_row(ends: Tensor, starts: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Of the keys where they stand: which are seen in part and which as a whole, (asking blocks, key blocks)."""
    blocks = ends.view(-1, block)
    earlier = starts.t() < starts
    whole_seen = earlier & (blocks.min(1).values >= starts + block)
    partly_seen = earlier & (blocks.max(1).values > starts) & ~whole_seen
    stays = (blocks > starts + torch.arange(block, device=ends.device)).any(1)
    partly_seen |= torch.diag(stays)
    return partly_seen, whole_seen


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


def _sees_a_copy(keys: SpreadKeys, block: int, positions: Tensor | None, window: int) -> MaskFunction:
    """The one of these two that it is, where spread keys are seen in the copy of the asking block."""

    def mask(_batch: Tensor, _head: Tensor, asking: Tensor, seen: Tensor) -> Tensor:
        place, copy = keys.places[seen], keys.copies[seen]
        sees = (place <= asking) & (asking < keys.ends[seen])
        sees = sees & ((copy < 0) | (copy == copy_of_block(asking // block)))
        if positions is not None:
            sees = sees & (positions[asking] - positions[place] < window)
        return sees

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
    if row.kernel is None:
        mixed = written_out(query, key, value, row.sliding if slides else row.whole, score, scaling)
    else:
        mixed = _kernel()(
            query,
            with_copies(key, row.kernel.slots),
            with_copies(value, row.kernel.slots),
            score_mod=score,
            block_mask=row.kernel.sliding if slides else row.kernel.whole,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
            kernel_options=row.kernel.form.options,
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
    """Make the function known to transformers under `NAME`. Without a mask function of that name it makes no mask."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, row_attention)


def _kernel() -> Callable[..., Tensor]:
    """Inside a layer that is being compiled the function is part of it; elsewhere it must be compiled by itself."""
    if torch.compiler.is_compiling():
        return flex_attention
    return _compiled_kernel()


@cache
def _compiled_kernel() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False)
