"""Asking the same in other words."""

from __future__ import annotations

import pytest

from finetune_trainer.dataset.examples.phrasing import normalised, phrasings

HEADINGS = [
    "What does a winter ticket cost?", "Who dresses the stones?", "When does the mill open in summer?",
    "Where can I park?",
    "How many terns nested?", "How do I order bread?", "Is there a café?", "Can flour be sent by post?",
    "Which bus goes there?",
    "Why is the wheel called Hester?", "Are dogs allowed?", "What goes into it?", "Gift vouchers", "The museum",
    "If the mill cancels", "What to bring", "Cost of the new gates", "Bread prices",
]  # fmt: skip


def questions(heading: str) -> list[str]:
    return [phrasing.question for phrasing in phrasings(heading, lambda topic: topic[0].lower() + topic[1:])]


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_heading_has_five_taught_phrasings_and_one_reserved(heading):
    ways = phrasings(heading, str.lower)

    assert sum(not way.reserved for way in ways) >= 5
    assert sum(way.reserved for way in ways) >= 1


@pytest.mark.parametrize("heading", HEADINGS)
def test_no_template_is_both_taught_and_reserved_and_no_question_comes_twice(heading):
    ways = phrasings(heading, str.lower)

    assert not {way.template for way in ways if way.reserved} & {
        way.template for way in ways if not way.reserved
    }
    assert len({normalised(way.question) for way in ways}) == len(ways)


@pytest.mark.parametrize(
    ("heading", "question"),
    [
        ("What does a winter ticket cost?", "What is the price of a winter ticket?"),
        ("What is a tide mill?", "Can you tell me what a tide mill is?"),
        ("What is the mill cat called?", "What is the name of the mill cat?"),
        ("Where is the configuration file?", "Where do I find the configuration file?"),
        ("How do I export readings?", "What is the way to export readings?"),
        ("Can I borrow a wheelchair?", "Is it possible to borrow a wheelchair?"),
        ("Is there a café at the mill?", "Do you have a café at the mill?"),
        ("Gift vouchers", "Tell me about gift vouchers."),
        ("If the mill cancels", "What happens if the mill cancels?"),
        ("What to bring", "Tell me what to bring."),
        ("Cost of the new gates", "What is the cost of the new gates?"),
        ("Bread prices", "What are the bread prices?"),
        ("What does error SK-207 mean?", "I get error SK-207, what now?"),
        ("What does a winter ticket cost?", "how much for a winter ticket"),
        ("What does a winter ticket cost?", "winter ticket cost"),
        ("Gift vouchers", "gift vouchers"),
        ("Ada Mill", "Ada Mill"),
        ("When to start", "Tell me when to start."),
    ],
)
def test_headings_become_natural_questions(heading, question):
    assert question in questions(heading)


def test_a_question_is_asked_as_it_stands_too():
    assert questions("Who owns the mill?")[0] == "Who owns the mill?"


def test_nobody_types_a_whole_headline_as_key_words():
    headline = "Illinois class uses free pass to explore national parks and beyond"

    assert not [way for way in phrasings(headline, str) if way.template.startswith("keywords")]


def test_no_placeholder_is_left():
    assert not [question for heading in HEADINGS for question in questions(heading) if "{" in question]
