"""A saved LoRA adapter, one layer at a time. Must not know the model that it goes on.

The files are those of peft's `save_pretrained`: adapter_config.json and adapter_model.safetensors, with the tensors
`base_model.model.<layer>.lora_A.weight` and `.lora_B.weight`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from finetune_trainer.errors import BaseModelRejected, StoreRejected

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_NOT_PLAIN = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "trainable_token_indices")


@dataclass(frozen=True)
class LoraWeights:
    """Which layers an adapter changes, and by how much."""

    path: Path
    layers: tuple[str, ...]
    """Names of the layers in the model, sorted."""
    scale: float
    """alpha / rank; with rank-stabilised LoRA (arXiv:2312.03732) alpha / sqrt(rank)."""
    transposed: bool
    """The layers hold their weights as (inputs, outputs), as GPT-2's do."""

    def change_of(self, layer: str) -> torch.Tensor:
        """What is added to the layer's weight: float32, (outputs, inputs), or the other way round if `transposed`."""
        with safe_open(self.path, framework="pt") as weights:
            down: torch.Tensor = weights.get_tensor(f"{_PREFIX}{layer}{_DOWN}").float()
            up: torch.Tensor = weights.get_tensor(f"{_PREFIX}{layer}{_UP}").float()
        change = (up @ down).mul_(self.scale)
        return change.T if self.transposed else change


def read_lora(folder: Path) -> LoraWeights:
    """The adapter in a folder; of its weights only the names are read.

    Raises:
        StoreRejected: a file is missing or damaged.
        BaseModelRejected: the adapter is more than plain LoRA.
    """
    path = folder / WEIGHTS_FILE
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        with safe_open(path, framework="pt") as weights:
            names = set(weights.keys())
    except (OSError, ValueError, SafetensorError) as error:
        raise StoreRejected(
            f"the adapter in {folder} cannot be read ({error}); delete its folder in the store to train it anew"
        ) from error
    layers = {name[len(_PREFIX) : -len(_DOWN)] for name in names if name.endswith(_DOWN)}
    expected = {f"{_PREFIX}{layer}{end}" for layer in layers for end in (_DOWN, _UP)}
    more = [name for name in _NOT_PLAIN if config.get(name)]
    if more or names != expected or not layers:
        found = more[0] if more else next(iter(sorted(names ^ expected)), "no layer")
        raise BaseModelRejected(
            f"the adapter is not plain LoRA ({found}); only lora_A and lora_B of a layer can be merged"
        )
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    return LoraWeights(
        path,
        tuple(sorted(layers)),
        alpha / (math.sqrt(rank) if config.get("use_rslora") else rank),
        bool(config.get("fan_in_fan_out")),
    )
