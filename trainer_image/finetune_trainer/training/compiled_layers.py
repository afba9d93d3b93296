"""Decoder layers compiled for rows of few lengths: one graph for all layers of a kind, and one a length.

Pays on a GPU, where it joins small operations into few kernels. On a CPU the compiler takes longer than it saves.
Must not know the loss or the loop.
"""

from __future__ import annotations

import math
from typing import Any

import torch

LENGTHS = 8
"""Rows are filled up to one of so many lengths: more would be compiled longer, fewer would carry more padding."""
BLOCK = 128
"""Tokens of a block of flex attention's mask."""


def static_length(tokens: int, longest: int) -> int:
    """The length to which a row is filled up: the least of LENGTHS steps up to the longest row of the run."""
    step = BLOCK * math.ceil(max(tokens, longest) / (LENGTHS * BLOCK))
    return step * math.ceil(tokens / step)


def compile_layers(model: torch.nn.Module, backend: str = "inductor") -> int:
    """Compile each decoder layer in place; how many there are. The first row of each length takes the time."""
    from torch import _dynamo
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    config: Any = _dynamo.config
    config.recompile_limit = max(config.recompile_limit, len(layers) * LENGTHS)
    for layer in layers:
        layer.compile(dynamic=False, backend=backend)
    return len(layers)
