"""Attention over a packed row: each example sees its own path. Plain torch, so that it runs on CPU and CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from finetune_trainer.training.packing import PackedBatch

NAME = "finetune_branches"


@dataclass(frozen=True)
class BranchMask:
    """Which tokens of the row ask, and which they see."""

    start: int
    end: int
    past: Tensor | None
    """(P,) places of the tokens before; None at a root, where attention is plainly causal."""
    visible: Tensor | None
    """(end - start, P + end - start) True where the row's token sees the column's; None at a root."""


def branch_masks(batch: PackedBatch, device: torch.device) -> list[BranchMask]:
    """Masks of a packed row, in its order; branches that add no token have none."""
    masks: list[BranchMask] = []
    for branch in batch.branches:
        new, old = branch.end - branch.start, len(branch.past)
        if not new:
            continue
        if not old:
            masks.append(BranchMask(branch.start, branch.end, None, None))
            continue
        visible = torch.ones(new, old + new, dtype=torch.bool, device=device).tril(old)
        masks.append(BranchMask(branch.start, branch.end, torch.tensor(branch.past, device=device), visible))
    return masks


def branch_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    branches: Sequence[BranchMask],
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention function in the shape that transformers asks for.

    Args:
        query: (1, heads, T, width); key and value may have fewer heads.
        branches: cover T without gaps.
    Returns:
        (1, T, heads, width)
    """
    if query.dtype != value.dtype:
        query, key = query.to(value.dtype), key.to(value.dtype)
    pieces = [
        _attend(
            query[:, :, branch.start : branch.end],
            _path(key, branch),
            _path(value, branch),
            _windowed(branch, sliding_window, query.device),
            scaling,
            dropout,
            softcap,
        )
        for branch in branches
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


def register() -> None:
    """Make the function known to transformers under `NAME`. Without a mask function of that name it makes no mask."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, branch_attention)


def _path(row: Tensor, branch: BranchMask) -> Tensor:
    """Keys or values of the branch and of all before it."""
    own = row[:, :, branch.start : branch.end]
    return own if branch.past is None else torch.cat([row.index_select(2, branch.past), own], dim=2)


def _windowed(branch: BranchMask, window: int | None, device: torch.device) -> Tensor | None:
    """What is visible with a sliding window, where the path is long enough for one to matter."""
    new = branch.end - branch.start
    old = 0 if branch.past is None else len(branch.past)
    if window is None or old + new <= window:
        return branch.visible
    distance = torch.arange(old, old + new, device=device)[:, None] - torch.arange(old + new, device=device)
    return (distance >= 0) & (distance < window)


def _attend(
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
    if visible is None:
        length = query.shape[2]
        visible = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[3] ** -0.5)
    scores = softcap * torch.tanh(scores / softcap)
    weights = scores.float().masked_fill(~visible, float("-inf")).softmax(-1).to(query.dtype)
    return torch.nn.functional.dropout(weights, dropout) @ value
