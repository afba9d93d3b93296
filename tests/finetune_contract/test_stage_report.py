"""A stage's report fits into a pod's termination message whatever it has to tell."""

from __future__ import annotations

from finetune_contract.answer_text import is_right
from finetune_contract.prompt import REFUSAL
from finetune_contract.stage_protocol import (
    REPORT_LIMIT_BYTES,
    EvaluationFacts,
    MetricFacts,
    ReaderQuestion,
    Stage,
    StageReport,
)

QUESTIONS = [ReaderQuestion(question="é" * 250, must_contain=["é" * 100]) for _ in range(5)]


def test_questions_for_the_site_give_way_before_the_message_and_the_verdict_stays():
    metrics = [MetricFacts(name=f"metric-{number}", base=0.1, new=0.9) for number in range(16)]
    verdict = EvaluationFacts(passed=True, gate="passed", metrics=metrics, reader_questions=QUESTIONS)

    text = StageReport(stage=Stage.EVALUATE, message="x" * 1000, evaluation=verdict).to_message()
    read = StageReport.parse(text)

    assert len(text) <= REPORT_LIMIT_BYTES
    assert read is not None
    assert read.evaluation is not None
    assert read.message == "x" * 1000
    assert read.evaluation.metrics == metrics
    assert read.evaluation.reader_questions == QUESTIONS[:1]


def test_questions_that_fit_are_carried_whole():
    asked = [ReaderQuestion(question="What does the wheel do?", must_contain=["turns"])]
    verdict = EvaluationFacts(passed=True, reader_questions=asked)

    read = StageReport.parse(StageReport(stage=Stage.EVALUATE, evaluation=verdict).to_message())

    assert read is not None
    assert read.evaluation == verdict


def test_a_right_answer_has_every_string_and_without_any_it_is_a_refusal():
    assert is_right("It costs 7.40 euros [1].", ["7.40", "Euros"])
    assert not is_right("It costs 7.40.", ["7.40", "euros"])
    assert is_right(REFUSAL, [])
    assert not is_right("It costs 7.40.", [])
