"""Attention over a row of segments: each sees itself alone. Plain torch, so that it runs on CPU and CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from finetune_trainer.training.packing import Segment

NAME = "finetune_segments"


@dataclass(frozen=True)
class SegmentMask:
    """Where a segment lies in the row, and who sees whom in it."""

    start: int
    end: int
    visible: Tensor | None
    """(T, T) True where the row's token sees the column's; None for plain causal attention."""


def segment_masks(segments: Sequence[Segment], device: torch.device) -> list[SegmentMask]:
    """Masks of a micro-batch, in the order of its row."""
    masks: list[SegmentMask] = []
    start = 0
    for segment in segments:
        visible = None
        if not segment.is_plain:
            visible = torch.zeros(len(segment), len(segment), dtype=torch.bool)
            for path in segment.paths:
                places = torch.tensor(path)
                causal = torch.ones(len(path), len(path), dtype=torch.bool).tril()
                visible[places[:, None], places[None, :]] |= causal
            visible = visible.to(device)
        masks.append(SegmentMask(start, start + len(segment), visible))
        start += len(segment)
    return masks


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Sequence[SegmentMask],
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention function in the shape that transformers asks for.

    Args:
        query: (1, heads, T, width); key and value may have fewer heads.
        segments: cover T without gaps.
    Returns:
        (1, T, heads, width)
    """
    if query.dtype != value.dtype:
        query, key = query.to(value.dtype), key.to(value.dtype)
    pieces = [
        _one_segment(
            query[:, :, mask.start : mask.end],
            key[:, :, mask.start : mask.end],
            value[:, :, mask.start : mask.end],
            _windowed(mask, sliding_window, query.device),
            scaling,
            dropout,
            softcap,
        )
        for mask in segments
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


def register() -> None:
    """Make the function known to transformers under `NAME`, with no mask of its own."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, segment_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _windowed(mask: SegmentMask, window: int | None, device: torch.device) -> Tensor | None:
    """The mask with a sliding window, where the segment is long enough for one to matter."""
    length = mask.end - mask.start
    if window is None or length <= window:
        return mask.visible
    if mask.visible is not None:
        depth = mask.visible.sum(1)  # a token sees its whole past, so its place in the path is what it counts
        near = depth[:, None] - depth[None, :] < window
        return mask.visible & near
    places = torch.arange(length, device=device)
    distance = places[:, None] - places[None, :]
    return (distance >= 0) & (distance < window)


def _one_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    if softcap is None:
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=visible,
            dropout_p=dropout,
            is_causal=visible is None,
            scale=scaling,
            enable_gqa=grouped,
        )
    if grouped:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    length = query.shape[2]
    if visible is None:
        visible = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[3] ** -0.5)
    scores = softcap * torch.tanh(scores / softcap)
    weights = scores.float().masked_fill(~visible, float("-inf")).softmax(-1).to(query.dtype)
    return torch.nn.functional.dropout(weights, dropout) @ value
