"""Loss and gradient behind a frozen head by their formulas, for a compiler to join: three passes over the logits.

By automatic differentiation it is a dozen, and with a vocabulary of 256,000 words they cost more than the products.
Must not know batches or models.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

HeadFormula = Callable[[Tensor, Tensor, Tensor, float | None], tuple[Tensor, Tensor]]


def loss_and_gradient(
    hidden: Tensor, labels: Tensor, head: Tensor, softcap: float | None
) -> tuple[Tensor, Tensor]:
    """Cross entropy summed over the tokens, and its gradient.

    Args:
        hidden: (T, width)
        labels: (T,)
        head: (vocabulary, width)
        softcap: logits are bent to stay within it, as Gemma 2 has them (arXiv:2408.00118, section 2).
    Returns:
        The loss in 32 bits, and the gradient of `hidden`, (T, width) in its number format.
    """
    logits = (hidden @ head.t()).float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    whole = logits.logsumexp(-1)
    loss = (whole - logits.gather(-1, labels[:, None])[:, 0]).sum()
    is_label = labels[:, None] == torch.arange(head.shape[0], device=labels.device)
    steepness = (logits - whole[:, None]).exp() - is_label.float()
    if softcap is not None:
        steepness = steepness * (1 - (logits / softcap) ** 2)
    return loss, steepness.to(hidden.dtype) @ head


@cache
def compiled() -> HeadFormula:
    """The same in few kernels, for any number of tokens."""
    return torch.compile(loss_and_gradient, dynamic=True)
