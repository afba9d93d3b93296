"""The train stage: the longest, on the GPU; it saves a checkpoint when it is told to stop."""

from __future__ import annotations

from finetune_contract.run_status import ConditionType, Phase
from finetune_contract.stage_protocol import Stage
from finetune_operator.stages.definition import StageDefinition, store_secrets

TRAIN = StageDefinition(
    stage=Stage.TRAIN,
    condition=ConditionType.TRAINED,
    phase=Phase.TRAINING,
    needs_key=True,
    uses_gpu=True,
    grace_seconds=120,
    secrets=store_secrets,
    absorb=lambda status, report: status,
    absorbed=lambda status: True,
    spreads=True,
)
