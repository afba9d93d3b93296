"""The package stage: makes the model that is served."""

from __future__ import annotations

from finetune_contract.run_status import ArtifactStatus, ConditionType, FineTuneRunStatus, Phase
from finetune_contract.stage_protocol import ModelFacts, Stage, StageReport
from finetune_operator.stages.definition import StageDefinition, store_secrets


def artifact_status(facts: ModelFacts) -> ArtifactStatus:
    """The stored model as the status shows it."""
    return ArtifactStatus.model_validate(facts.model_dump())


def _absorb(status: FineTuneRunStatus, report: StageReport) -> FineTuneRunStatus | None:
    if report.model is None:
        return None
    return status.model_copy(update={"artifact": artifact_status(report.model)})


PACKAGE = StageDefinition(
    stage=Stage.PACKAGE,
    condition=ConditionType.PACKAGED,
    phase=Phase.PACKAGING,
    needs_key=True,
    uses_gpu=False,
    grace_seconds=30,
    secrets=store_secrets,
    absorb=_absorb,
    absorbed=lambda status: status.artifact is not None,
)
