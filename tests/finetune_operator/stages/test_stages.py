"""The table of stages."""

from __future__ import annotations

import pytest

from finetune_contract.run_status import ConditionType, FineTuneRunStatus
from finetune_contract.stage_protocol import EvaluationFacts, ReaderQuestion, Stage, StageReport
from finetune_operator.stages import STAGE_BY_NAME, STAGES
from tests.finetune_operator.samples import MANIFEST, URI, a_report, a_run


def test_every_stage_of_the_contract_has_its_row_in_order_and_its_own_condition():
    assert [definition.stage for definition in STAGES] == list(Stage)
    assert len({definition.condition for definition in STAGES}) == len(STAGES)
    assert not {definition.condition for definition in STAGES} & {
        ConditionType.READY,
        ConditionType.ROLLED_OUT,
    }


@pytest.mark.parametrize("stage", list(Stage))
def test_a_report_of_success_brings_what_the_stage_owes(stage):
    definition = STAGE_BY_NAME[stage]

    status = definition.absorb(FineTuneRunStatus(), a_report(stage))

    assert status is not None
    assert definition.absorbed(status)


@pytest.mark.parametrize("stage", [Stage.DATASET, Stage.PACKAGE, Stage.EVALUATE])
def test_a_report_without_its_facts_brings_nothing(stage):
    definition = STAGE_BY_NAME[stage]

    assert definition.absorb(FineTuneRunStatus(), StageReport(stage=stage)) is None
    assert not definition.absorbed(FineTuneRunStatus())


def test_the_verdict_brings_what_the_site_is_asked_later():
    asked = [ReaderQuestion(question="What does the wheel do?", must_contain=["turns"])]
    verdict = EvaluationFacts(passed=True, reader_questions=asked)

    status = STAGE_BY_NAME[Stage.EVALUATE].absorb(
        FineTuneRunStatus(), a_report(Stage.EVALUATE, evaluation=verdict)
    )

    assert status is not None
    assert status.evaluation is not None
    assert status.evaluation.reader_questions == asked


def test_packaging_names_the_stored_model():
    status = STAGE_BY_NAME[Stage.PACKAGE].absorb(FineTuneRunStatus(), a_report(Stage.PACKAGE))

    assert status is not None
    assert status.artifact is not None
    assert (status.artifact.uri, status.artifact.manifest_sha256) == (URI, MANIFEST)


def test_a_verdict_too_long_for_the_status_is_cut():
    report = a_report(Stage.EVALUATE, evaluation=EvaluationFacts(passed=False, gate="x" * 2000))

    status = STAGE_BY_NAME[Stage.EVALUATE].absorb(FineTuneRunStatus(), report)

    assert status is not None
    assert status.evaluation is not None
    assert len(status.evaluation.gate) == 1024


@pytest.mark.parametrize("stage", list(Stage))
def test_every_secret_names_the_field_that_asked_for_it(stage):
    secrets = STAGE_BY_NAME[stage].secrets(a_run().spec)

    assert secrets
    assert all(secret.spec_field.startswith("spec.") for secret in secrets)
