"""What the model has answered right becomes the question that its server is asked."""

from __future__ import annotations

from dataclasses import replace

from finetune_contract.artifacts import ChatMessage, Example
from finetune_contract.prompt import REFUSAL
from finetune_contract.run_spec import ExampleKind
from finetune_contract.stage_protocol import MOST_READER_QUESTIONS
from finetune_trainer.evaluation.answers import Answer, AnswerPair
from finetune_trainer.evaluation.golden import MOST, golden_questions, reader_questions


def pair(
    number: int, said: str, kind: ExampleKind = ExampleKind.GROUNDED, stopped: bool = True
) -> AnswerPair:
    example = Example(
        id=f"{number:03}",
        kind=kind,
        document_url="http://s/a",
        template="t",
        question=f"Question {number}?",
        prompt=[ChatMessage(role="user", content=f"Question {number}?")],
        answer="It is 7.40 euros.",
        must_contain=[] if kind is ExampleKind.REFUSAL else ["7.40"],
    )
    return AnswerPair(example, Answer("no", True), Answer(said, stopped))


def ids(pairs: list[AnswerPair]) -> list[str]:
    return [golden.id for golden in golden_questions(pairs)]


def test_only_right_answers_that_ended_by_themselves_are_kept():
    pairs = [
        pair(1, "It is 7.40 euros."),
        pair(2, "It is 8 euros."),
        pair(3, "It is 7.40 euros.", stopped=False),
        pair(4, REFUSAL, ExampleKind.REFUSAL),
        pair(5, "It is 9 euros.", ExampleKind.REFUSAL),
    ]

    assert ids(pairs) == ["001", "004"]


def test_a_question_goes_with_its_prompt_its_fact_and_what_the_model_said():
    golden = golden_questions([pair(1, "Only 7.40.")])[0]

    assert (golden.question, golden.must_contain, golden.answer) == ("Question 1?", ["7.40"], "Only 7.40.")
    assert golden.prompt[-1].content == "Question 1?"


def test_a_site_is_asked_only_what_it_answers_from_its_own_sources():
    """A refusal was right for the sources that were shown; the site finds better ones."""
    kinds = {kind: pair(number, "It is 7.40.", kind) for number, kind in enumerate(ExampleKind)}
    kinds[ExampleKind.REFUSAL] = pair(90, REFUSAL, ExampleKind.REFUSAL)
    wrong = pair(91, "It is 8 euros.")

    asked = reader_questions([*kinds.values(), wrong])

    telling = (ExampleKind.GROUNDED, ExampleKind.GENERATED)
    assert sorted(one.question for one in asked) == sorted(kinds[kind].example.question for kind in telling)
    assert all(one.must_contain == ["7.40"] for one in asked)


def test_what_the_site_is_asked_fits_into_a_report():
    pairs = [pair(number, "It is 7.40.") for number in range(20)]
    long = [replace(one, example=one.example.model_copy(update={"question": "é" * 400})) for one in pairs]
    wide = [replace(one, example=one.example.model_copy(update={"question": "é" * 120})) for one in pairs]

    assert len(reader_questions(pairs)) == MOST_READER_QUESTIONS
    assert reader_questions(long) == []
    assert len(reader_questions(wide)) == 1


def test_the_first_ones_are_of_every_kind_and_there_is_an_end_to_them():
    right = [pair(number, "7.40") for number in range(60)]
    refused = [pair(100 + number, REFUSAL, ExampleKind.REFUSAL) for number in range(60)]

    found = ids(right + refused)

    assert found[:2] == ["000", "100"]
    assert len(found) == MOST
