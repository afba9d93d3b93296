"""The stages by name. Each is imported when it runs, so that the dataset stage needs no torch."""

from __future__ import annotations

from importlib import import_module

from finetune_contract.stage_protocol import Stage
from finetune_trainer.stage_context import StageFunction

STAGES: dict[Stage, str] = {
    Stage.DATASET: "finetune_trainer.dataset.build:build_dataset",
    Stage.TRAIN: "finetune_trainer.training.train:train",
    Stage.PACKAGE: "finetune_trainer.packaging.package:package",
    Stage.EVALUATE: "finetune_trainer.evaluation.evaluate:evaluate",
}


def load_stage(stage: Stage) -> StageFunction:
    """The function of a stage."""
    module, _, name = STAGES[stage].partition(":")
    function: StageFunction = getattr(import_module(module), name)
    return function
