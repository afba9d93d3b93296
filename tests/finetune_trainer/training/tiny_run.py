"""Training runs of the tiny model: how to start one, and what it left."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from finetune_contract.artifact_layout import adapter_folder
from finetune_contract.stage_protocol import StageReport
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training.adapter_files import TRAINING_LOG
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import (
    RUN_KEY,
    context_for,
    example,
    publish_dataset,
    spec_for,
)

ROWS = [example(number) for number in range(10)]


class StopAfter:
    """Says stop once it was asked so often."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def files_of_the_base(base: Path) -> int:
    """How often it is asked whether to stop before the first step."""
    return sum(path.is_file() for path in base.iterdir())


def run(folder: Path, base: Path, stop_after: int | None = None, **training: object) -> StageReport:
    spec = spec_for(base, **training)
    context = (
        context_for(folder, spec, StopAfter(stop_after))
        if stop_after is not None
        else context_for(folder, spec)
    )
    publish_dataset(context, ROWS)
    return train(context)


def losses(folder: Path) -> list[float]:
    path = folder / "store" / adapter_folder(RUN_KEY) / TRAINING_LOG
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(
        folder / "store" / adapter_folder(RUN_KEY) / "adapter_model.safetensors"
    )
    return weights


def context_with_checkpoints(folder: Path, base: Path, **training: object) -> StageContext:
    """A run with its dataset, and with a checkpoint after every step."""
    spec = spec_for(base, **training)
    often = spec.training.model_copy(update={"checkpoint_every_seconds": 0})
    context = context_for(folder, spec.model_copy(update={"training": often}))
    publish_dataset(context, ROWS)
    return context


def assert_same_run(folder: Path, other: Path) -> None:
    """Losses and weights to the last bit."""
    assert losses(folder) == losses(other)
    weights, others = adapter_weights(folder), adapter_weights(other)
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=0, atol=0)
