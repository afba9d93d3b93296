"""Answer-only loss of a micro-batch: logits are made where an answer token is predicted, and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from finetune_trainer.training import attention
from finetune_trainer.training.packing import PackedBatch


def summed_loss(model: torch.nn.Module, batch: PackedBatch, device: torch.device) -> Tensor:
    """Cross entropy summed over the answer tokens; divide by their number in the whole effective batch."""
    if model.config._attn_implementation == attention.NAME:  # type: ignore[union-attr]
        return _packed_loss(model, batch, device)
    return _one_by_one_loss(model, batch, device)


def _packed_loss(model: torch.nn.Module, batch: PackedBatch, device: torch.device) -> Tensor:
    output = model(
        input_ids=torch.tensor([batch.token_ids], device=device),
        position_ids=torch.tensor([batch.positions], device=device),
        logits_to_keep=torch.tensor(batch.label_places, device=device),
        branches=attention.branch_masks(batch, device),
        use_cache=False,
    )
    logits: Tensor = output.logits[0]
    return cross_entropy(logits.float(), torch.tensor(batch.labels, device=device), reduction="sum")


def _one_by_one_loss(model: torch.nn.Module, batch: PackedBatch, device: torch.device) -> Tensor:
    """For models whose attention cannot be replaced: every example is a row of its own."""
    total = torch.zeros((), device=device)
    label_start = 0
    for branch, count in zip(batch.branches, batch.answer_lengths, strict=True):
        token_ids = torch.tensor([[batch.token_ids[place] for place in branch.path]], device=device)
        labels = torch.tensor(batch.labels[label_start : label_start + count], device=device)
        label_start += count
        logits: Tensor = model(input_ids=token_ids, use_cache=False).logits[0]
        total = total + cross_entropy(logits[-count - 1 : -1].float(), labels, reduction="sum")
    return total
