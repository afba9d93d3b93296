"""Typing mistakes in questions: the same ones every time, and never where the fact is."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.examples.draft import make_draft
from finetune_trainer.dataset.examples.phrasing import Phrasing, normalised
from finetune_trainer.dataset.examples.places import Places
from finetune_trainer.dataset.examples.typos import TEMPLATE_MARK, mistype, with_typos

QUESTION = "Can you tell me what Caspian Ruddle was paid for 12 days of dressing the stones in May?"


def examples(count):
    ways = [Phrasing("t.0", f"What does the ticket number {n} cost in winter?") for n in range(count)]
    return [
        make_draft(Places([]), ExampleKind.CLOSED_BOOK, "u", way, (), "It costs £7.", ["£7"], 0).example
        for way in ways
    ]


def test_a_mistake_is_made_and_it_is_the_same_every_time():
    spoilt = mistype(QUESTION, "an id")

    assert spoilt != QUESTION
    assert spoilt == mistype(QUESTION, "an id")
    assert spoilt != mistype(QUESTION, "another id")


@given(st.text(max_size=8))
@settings(max_examples=50, deadline=None)
def test_names_numbers_and_short_words_stay_whole(identity):
    spoilt = mistype(QUESTION, identity, protected=["dressing the stones"])

    kept = ["Can", "me", "Caspian", "Ruddle", "12", "dressing", "stones", "May"]
    assert set(kept) <= set(re.findall(r"\w+", spoilt))


def test_a_title_in_quotation_marks_stays_whole():
    question = "Who wrote “what happens when loaves collapse”?"

    assert "“what happens when loaves collapse”" in mistype(question, "an id")


def test_what_cannot_bear_a_mistake_stays_as_it_is():
    assert mistype("Is it A 7?", "an id") == "Is it A 7?"
    assert mistype("", "an id") == ""


def test_about_the_asked_share_has_mistakes_in_question_and_prompt_and_the_answer_none():
    rows = examples(400)

    result = with_typos(rows, 0.2, seed=7)

    changed = [(old, new) for old, new in zip(rows, result, strict=True) if old != new]
    assert 40 < len(changed) < 120
    for old, new in changed:
        assert (new.id, new.answer, new.must_contain) == (old.id, old.answer, old.must_contain)
        assert new.prompt[-1].content == old.prompt[-1].content.replace(old.question, new.question)
        assert new.template == old.template + TEMPLATE_MARK


def test_without_a_share_nothing_changes():
    assert with_typos(examples(50), 0.0, seed=7) == examples(50)


def test_a_mistake_that_makes_a_taken_question_is_not_made():
    rows = examples(100)
    taken = {normalised(row.question) for row in with_typos(rows, 1.0, seed=7)}

    assert with_typos(rows, 1.0, seed=7, taken=taken) == rows
