"""Questions that are made from the sentence which answers them."""

from __future__ import annotations

import pytest

from finetune_trainer.dataset.examples.sentence_questions import RULES, asked_of_sentence

SENTENCES = {
    "said-cost": ("The bat walk costs £6.80 with cocoa.", "How much does the bat walk cost?"),
    "said-pay": ("Adults pay £7.40 in the winter months.", "How much do adults pay?"),
    "said-number": ("The roof carries 86 solar panels in all.", "How many solar panels does the roof carry?"),
    "said-measure": ("The wheel is some 5.4 metres in diameter.", "What size is the wheel?"),
    "said-when": ("The mill was built in 1687 by two brothers.", "When was the mill built?"),
    "said-by": ("The course is taught by the baker Tobias Oskarne.", "By whom is the course taught?"),
    "said-with": ("Readings are backed up by `sluice archive` alone.", "With which command are readings backed up?"),
    "said-where": ("The key is kept behind the door.", "Where is the key kept?"),
    "said-time": ("The bakery opens at 07:35 on weekdays.", "At what time does the bakery open?"),
    "said-is": ("A leat is a stone channel.", "What is a leat?"),
    "said-became": ("Ada Quill became director of the mill on 4 March 2024.", "Who took over as director of the mill?"),
}  # fmt: skip


def lowered(subject: str) -> str:
    return subject[:1].lower() + subject[1:]


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_every_rule_asks_for_what_its_sentence_says(rule):
    sentence, question = SENTENCES[rule]

    ways = asked_of_sentence(sentence, lowered)

    assert question in {way.question for way in ways}
    assert {way.template.split(".")[0] for way in ways} == {rule}
    assert {way.reserved for way in ways} == {True, False}
    assert all(way.from_answer for way in ways)
    assert not [way.question for way in ways if "{" in way.question]


@pytest.mark.parametrize(
    "sentence",
    [
        "It costs £5 a head.",
        "They were built in 1687.",
        "Visitors who come late pay £5 more.",
        "Ask the baker.",
        "Replacing them quickly is what the crew does 3 times.",
        "",
    ],
)
def test_nothing_is_asked_of_a_sentence_that_names_no_subject(sentence):
    assert asked_of_sentence(sentence, lowered) == []


def test_the_helping_verb_agrees_with_its_subject_and_time():
    def first(sentence: str) -> str:
        return asked_of_sentence(sentence, lowered)[0].question

    assert first("Bat walks start at 20:50 in May.") == "At what time do bat walks start?"
    assert first("The count found 268 nesting pairs.") == "How many nesting pairs did the count find?"
    assert first("Replacing the gates cost £148,300 in all.") == "How much did replacing the gates cost?"
