"""Noise on what the model reads while it trains, so that it learns the answers and not their wording (NEFTune).

Uniform in +-alpha / sqrt(L d) for an example of L tokens and embeddings of width d (arXiv:2310.05914, section 2).
Examples that share a beginning share its noise: it lies in the row once, with the length of the first that has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from finetune_trainer.training.packing import PackedBatch


def token_lengths(batch: PackedBatch, padding: int) -> list[int]:
    """For every place of the row, the length of the example that brought it; 0 for padding."""
    lengths = [0] * (len(batch) + padding)
    for branch in batch.branches:
        length = len(branch.past) + branch.end - branch.start
        lengths[branch.start : branch.end] = [length] * (branch.end - branch.start)
    return lengths


def with_noise(embeddings: Tensor, lengths: list[int], alpha: float) -> Tensor:
    """Embeddings moved by fresh noise.

    Args:
        embeddings: (1, T, d)
        lengths: of the example of each token; a token of none is left as it is.
    """
    counts = torch.tensor(lengths, dtype=torch.float32, device=embeddings.device)
    bounds = torch.where(counts > 0, alpha * (counts * embeddings.shape[-1]).rsqrt(), 0.0)
    noise = torch.empty_like(embeddings, dtype=torch.float32).uniform_(-1, 1) * bounds[None, :, None]
    return embeddings + noise.to(embeddings.dtype)
