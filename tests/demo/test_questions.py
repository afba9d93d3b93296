"""What makes an answer right. Left out: the sites' own answers, which the tests on the cluster ask for."""

from __future__ import annotations

from demo.questions import Answer, Question, demo_questions, faults, more_questions, retrain_story


def an_answer(
    text: str, link: str = "http://site.example/2025/01/ticket-prices/", *, refused: bool = False
) -> Answer:
    return Answer(text, (link,), "sha256:0", refused, 0.1)


PRICE = Question("What does it cost?", ("£7.40",), "ticket-prices")


def test_a_short_answer_with_fact_and_link_is_right() -> None:
    assert faults(PRICE, an_answer("A winter ticket costs £7.40 [1].")) == []


def test_an_answer_without_the_fact_says_what_it_lacks() -> None:
    assert faults(PRICE, an_answer("It costs £9.")) == ["lacks '£7.40'"]


def test_a_number_inside_another_number_is_not_the_fact() -> None:
    bus = Question("Which bus?", ("61",), "ticket-prices")

    assert faults(bus, an_answer("Since 1961 [1].")) == ["lacks '61'"]
    assert faults(bus, an_answer("Bus 61 [1].")) == []


def test_the_right_words_with_a_wrong_link_are_wrong() -> None:
    assert faults(PRICE, an_answer("£7.40", "http://site.example/other/")) == ["cites another page"]


def test_an_answer_that_names_no_page_is_wrong_for_a_reader_who_wants_to_check() -> None:
    assert faults(PRICE, Answer("£7.40", (), "sha256:0", False, 0.1)) == ["cites no page"]


def test_a_rambling_answer_is_wrong_even_when_it_holds_the_fact() -> None:
    assert faults(PRICE, an_answer("£7.40 " + "and more " * 30)) == ["rambles: 61 words"]


def test_a_question_beyond_the_site_wants_a_refusal_and_nothing_else() -> None:
    pool = Question("Is there a pool?", must_refuse=True)

    assert faults(pool, an_answer("I could not find that on this site.", refused=True)) == []
    assert faults(pool, an_answer("Yes, with a slide.")) != []


def test_the_sample_site_has_five_demo_questions_of_which_one_must_be_refused() -> None:
    questions = demo_questions()

    assert [question.must_refuse for question in questions] == [False, False, False, False, True]
    assert len(more_questions()) == 20
    assert retrain_story().new != retrain_story().old
