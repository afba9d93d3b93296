"""A model in training that is read for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def at_rest(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout, and without gradients.

    The 4-bit layers stay as they are: on some CPUs bitsandbytes lays the weights of a resting layer out anew, with
    other rounding, and training would go on with those. They have no dropout of their own.
    """
    from bitsandbytes.nn.modules import Linear4bit

    resting = [m for m in model.modules() if m.training and not isinstance(m, Linear4bit)]
    for module in resting:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in resting:
            module.training = True
