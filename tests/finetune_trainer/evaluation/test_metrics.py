from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.answer_text import contains
from finetune_contract.artifacts import Example
from finetune_contract.prompt import REFUSAL
from finetune_contract.run_spec import ExampleKind, GateMetric
from finetune_trainer.evaluation.answers import Answer, choose_questions, wilson_interval
from finetune_trainer.evaluation.metrics import METRICS, measure
from tests.finetune_trainer.training.tiny_model import example


def asking(must_contain: list[str], answer: str = "", kind: ExampleKind = ExampleKind.GROUNDED) -> Example:
    return example(0, kind=kind).model_copy(update={"must_contain": must_contain, "answer": answer})


def score(name: GateMetric, question: Example, text: str, stopped: bool = True) -> float:
    return METRICS[name].score(question, Answer(text, stopped))


def test_every_metric_that_a_gate_may_name_is_measured():
    assert set(METRICS) == set(GateMetric)


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("Adults pay £7.40 in winter. [1]", "£7.40", True),
        ("Adults pay £17.40 in winter.", "£7.40", False),
        ("It takes 117 hours.", "17 hours", False),
        ("It takes 17\u00a0Hours.", "17 hours", True),
        ("The port is 8417.", "8417", True),
        ("It costs 86.50", "86", False),
        ("It's the miller’s house", "miller's house", True),
        ("pip install sluicekeeper-server [2]", "pip install sluicekeeper-server", True),
    ],
)
def test_a_fact_is_found_as_a_whole_word_or_number_in_any_case_and_quote(text: str, wanted: str, found: bool):
    assert contains(text, wanted) is found


def test_recall_is_the_share_of_facts_in_the_answer():
    question = asking(["09:40", "17:20"])

    assert score(GateMetric.ANSWER_RECALL, question, "From 09:40 to 17:20. [1]") == 1
    assert score(GateMetric.ANSWER_RECALL, question, "From 09:40.") == 0.5
    assert score(GateMetric.ANSWER_RECALL, question, REFUSAL) == 0


def test_f1_is_one_for_the_expected_words_and_falls_with_every_other_word():
    question = asking([], "The mill opens at 09:40. [1]")

    exact = score(GateMetric.ANSWER_F1, question, "the mill opens at 09:40")
    longer = score(
        GateMetric.ANSWER_F1, question, "the mill opens at 09:40 and it is a very nice mill to see"
    )

    assert exact == 1
    assert 0 < longer < 0.8
    assert score(GateMetric.ANSWER_F1, question, "no idea") == 0


def test_a_refusal_counts_where_the_site_does_not_know():
    question = asking([], REFUSAL, ExampleKind.REFUSAL)

    assert score(GateMetric.REFUSAL_ACCURACY, question, REFUSAL) == 1
    assert score(GateMetric.REFUSAL_ACCURACY, question, "It costs £5. [1]") == 0


def test_an_answer_that_runs_into_the_limit_did_not_stop():
    assert score(GateMetric.STOP_RATE, asking([]), "x", stopped=True) == 1
    assert score(GateMetric.STOP_RATE, asking([]), "x", stopped=False) == 0


def test_golden_answers_score_one_on_every_metric():
    rows = [asking(["17"], "It is 17. [1]"), asking([], REFUSAL, ExampleKind.REFUSAL)]

    for metric in METRICS.values():
        assert measure(metric, [(row, Answer(row.answer, True)) for row in rows]).value == 1


def test_a_metric_that_no_question_asks_for_has_no_value():
    measured = measure(METRICS[GateMetric.REFUSAL_ACCURACY], [(asking(["1"]), Answer("1", True))])

    assert measured.value is None
    assert measured.count == 0


def test_questions_are_chosen_from_every_kind_and_always_the_same():
    rows = [example(n) for n in range(20)] + [example(n, "?", ExampleKind.REFUSAL) for n in range(20, 23)]

    chosen = choose_questions(rows, 8)

    assert sum(row.kind is ExampleKind.REFUSAL for row in chosen) == 3
    assert len(chosen) == 8
    assert choose_questions(list(reversed(rows)), 8) == chosen
    assert len(choose_questions(rows, 100)) == 23


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 50))
def test_the_interval_holds_the_share_and_stays_between_zero_and_one(hits: int, count: int):
    share = min(hits, count) / count

    low, high = wilson_interval(share, count)

    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1


def test_the_interval_is_the_textbook_one():
    assert wilson_interval(0.5, 200) == pytest.approx((0.4314, 0.5686), abs=1e-4)
    assert wilson_interval(0.0, 0) == (0.0, 1.0)
