"""The stages in the order in which they run. A new stage is one file and one line here."""

from __future__ import annotations

from finetune_contract.stage_protocol import Stage
from finetune_operator.stages.dataset import DATASET
from finetune_operator.stages.definition import SecretEnv, StageDefinition
from finetune_operator.stages.evaluate import EVALUATE
from finetune_operator.stages.package import PACKAGE
from finetune_operator.stages.train import TRAIN

__all__ = ["STAGES", "STAGE_BY_NAME", "SecretEnv", "StageDefinition"]

STAGES: tuple[StageDefinition, ...] = (DATASET, TRAIN, PACKAGE, EVALUATE)
STAGE_BY_NAME: dict[Stage, StageDefinition] = {definition.stage: definition for definition in STAGES}
