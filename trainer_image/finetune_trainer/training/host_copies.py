"""Numbers made on the CPU, on their way to where the model is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def sent(numbers: Sequence[Any], device: torch.device) -> Tensor:
    """A tensor of them on the device. To a GPU they go beside what it computes, and nobody waits for them."""
    if device.type != "cuda":
        return torch.tensor(numbers, device=device)
    return torch.tensor(numbers).pin_memory().to(device, non_blocking=True)
