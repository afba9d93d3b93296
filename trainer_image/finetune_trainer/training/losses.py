"""Answer-only loss of a micro-batch: logits are made where an answer token is predicted, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from finetune_trainer.training import attention
from finetune_trainer.training.packing import Segment


def answer_tokens(segments: Sequence[Segment]) -> int:
    """Answer tokens of a micro-batch."""
    return sum(len(segment.labels) for segment in segments)


def summed_loss(model: torch.nn.Module, segments: Sequence[Segment], device: torch.device) -> Tensor:
    """Cross entropy summed over the answer tokens; divide by their number in the whole effective batch."""
    if model.config._attn_implementation == attention.NAME:  # type: ignore[union-attr]
        return _packed_loss(model, segments, device)
    return _one_by_one_loss(model, segments, device)


def _packed_loss(model: torch.nn.Module, segments: Sequence[Segment], device: torch.device) -> Tensor:
    token_ids: list[int] = []
    positions: list[int] = []
    places: list[int] = []
    labels: list[int] = []
    for segment in segments:
        places += [len(token_ids) + place for place in segment.label_places]
        labels += segment.labels
        token_ids += segment.token_ids
        positions += segment.positions
    output = model(
        input_ids=torch.tensor([token_ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        logits_to_keep=torch.tensor(places, device=device),
        segments=attention.segment_masks(segments, device),
        use_cache=False,
    )
    logits: Tensor = output.logits[0]
    return cross_entropy(logits.float(), torch.tensor(labels, device=device), reduction="sum")


def _one_by_one_loss(model: torch.nn.Module, segments: Sequence[Segment], device: torch.device) -> Tensor:
    """For models whose attention cannot be replaced: every example is a row of its own."""
    total = torch.zeros((), device=device)
    for segment in segments:
        label_start = 0
        for path, count in zip(segment.paths, segment.answer_lengths, strict=True):
            token_ids = torch.tensor([[segment.token_ids[place] for place in path]], device=device)
            labels = torch.tensor(segment.labels[label_start : label_start + count], device=device)
            label_start += count
            logits: Tensor = model(input_ids=token_ids, use_cache=False).logits[0]
            total = total + cross_entropy(logits[-count - 1 : -1].float(), labels, reduction="sum")
    return total
