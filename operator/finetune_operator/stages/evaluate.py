"""The evaluate stage: base against tuned model, and the verdict of the gates."""

from __future__ import annotations

from finetune_contract.run_status import (
    ConditionType,
    EvaluationStatus,
    FineTuneRunStatus,
    MetricStatus,
    Phase,
)
from finetune_contract.stage_protocol import EvaluationFacts, Stage, StageReport
from finetune_operator.stages.definition import MAX_TEXT_LENGTH, StageDefinition, shown_number, store_secrets


def evaluation_status(facts: EvaluationFacts) -> EvaluationStatus:
    """The verdict as the status shows it."""
    return EvaluationStatus(
        passed=facts.passed,
        gate="Passed" if facts.passed else (facts.gate or "Failed")[:MAX_TEXT_LENGTH],
        metrics=[
            MetricStatus(
                name=metric.name[:MAX_TEXT_LENGTH],
                base=shown_number(metric.base),
                new=shown_number(metric.new),
            )
            for metric in facts.metrics
        ],
        report_uri=facts.report_uri[:MAX_TEXT_LENGTH],
        reader_questions=facts.reader_questions,
    )


def _absorb(status: FineTuneRunStatus, report: StageReport) -> FineTuneRunStatus | None:
    if report.evaluation is None:
        return None
    return status.model_copy(update={"evaluation": evaluation_status(report.evaluation)})


EVALUATE = StageDefinition(
    stage=Stage.EVALUATE,
    condition=ConditionType.EVALUATED,
    phase=Phase.EVALUATING,
    needs_key=True,
    uses_gpu=True,
    grace_seconds=30,
    secrets=store_secrets,
    absorb=_absorb,
    absorbed=lambda status: status.evaluation is not None,
)
