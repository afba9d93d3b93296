from __future__ import annotations

import re

from finetune_contract.run_spec import ExampleKind, GateMetric, GateSpec
from finetune_contract.stage_protocol import EvaluationFacts
from finetune_trainer.evaluation.answers import Answer, AnswerPair
from finetune_trainer.evaluation.gates import judge
from finetune_trainer.evaluation.report import RunFacts, render_report
from tests.finetune_trainer.training.tiny_model import example

FACTS = RunFacts("marrowby", "s3://models/base/", "k" * 64, "d" * 64)
RECALL = GateMetric.ANSWER_RECALL


def pair(number: int, base: str, new: str, kind: ExampleKind = ExampleKind.GROUNDED) -> AnswerPair:
    return AnswerPair(example(number, kind=kind), Answer(base, False), Answer(new, True))


def page(passed: bool = True, pairs: list[AnswerPair] | None = None) -> str:
    gates = judge([GateSpec(metric=RECALL, minimum=0.5)], {RECALL: (0.0, 1.0 if passed else 0.25)})
    verdict = EvaluationFacts(passed=passed, gate="passed" if passed else gates[0].failure)
    return render_report(FACTS, verdict, gates, pairs or [pair(0, "no idea", "3 metres. [1]")])


def test_the_verdict_comes_first():
    assert "marrowby: <strong>passed</strong>" in page().split("<section>")[0]
    failed = page(passed=False).split("<section>")[0]
    assert "not good enough" in failed
    assert "answer_recall 0.25 is under 0.50" in failed


def test_the_page_needs_no_network():
    assert not re.search(r"(?:src|href)=|url\(|@import|<script", page())


def test_what_a_model_says_is_escaped():
    text = page(pairs=[pair(0, "<script>alert(1)</script>", "3 metres. <b>[1]</b>")])

    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_wrong_and_learned_answers_stand_side_by_side():
    pairs = [
        pair(0, "no idea", "3 metres. [1]"),
        pair(2, "4 metres.", "9 metres. [1]"),
        pair(4, "5 metres", "5 metres. [1]"),
    ]

    text = page(pairs=pairs)

    wrong, learned = text.split("Still wrong: 1 of 3")[1].split("Learned: 1 of 3")
    assert "9 metres. [1]" in wrong
    assert "no idea" in learned
    assert "did not stop" in learned


def test_both_sets_are_shown_and_a_small_site_has_only_one():
    gates = judge([GateSpec(metric=RECALL, minimum=0.5)], {RECALL: (0.0, 1.0)})
    verdict = EvaluationFacts(passed=True, gate="passed")

    text = render_report(FACTS, verdict, gates, [pair(0, "", "3 metres.")], [pair(2, "", "9 metres.")] * 7)

    assert "Pages that were not taught" not in page()
    assert "and 7 about pages that it never saw" in text
    assert re.search(r"grounded</td><td class=\"number\">7</td>", text.split("Pages that were not taught")[1])
    assert "Still wrong: 0 of 1" in text


def test_kinds_are_counted_apart():
    text = page(pairs=[pair(0, "", "3 metres."), pair(2, "", "I do not know", ExampleKind.REFUSAL)])

    rows = re.findall(r"<tr><td>(grounded|refusal)</td><td class=\"number\">(\d+)</td>", text)
    assert rows == [("grounded", "1"), ("refusal", "1")]
