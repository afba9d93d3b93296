"""Finding the sentence that answers a heading, and the strings that carry its fact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.answer_text import is_right
from finetune_trainer.dataset.examples.answers import answer_sentence, fact_strings, first_prose, sentences


def test_abbreviations_end_no_sentence():
    assert sentences("Mr. Peck cut the stones. He left at 5 p.m. on Friday.") == [
        "Mr. Peck cut the stones.",
        "He left at 5 p.m. on Friday.",
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "The Ditch, a.k.a. The Leat, is old.",
        "It stands at No. 7 Quay Lane.",
        "J. Smith of St. Mary cut it.",
        "Bring a coat, e.g. Oilskin.",
        "It opened on Jan. 5 at noon.",
        "We meet at 3 p.m. Friday.",
    ],
)
def test_shortened_words_end_no_sentence(sentence):
    assert sentences(f"{sentence} More follows.") == [sentence, "More follows."]


def test_a_no_and_an_afternoon_end_a_sentence():
    assert sentences("No. It is shut after 5 p.m. We sleep.") == [
        "No.",
        "It is shut after 5 p.m.",
        "We sleep.",
    ]


def test_code_in_a_longer_fence_is_no_prose():
    assert first_prose("````\n```\n\nNot this.\n\n```\n````\n\nBut this.") == "But this."


def test_a_country_in_letters_ends_no_sentence():
    assert sentences("It came from the U.S. Digital Service. We like it.") == [
        "It came from the U.S. Digital Service.",
        "We like it.",
    ]


def test_a_closing_quotation_mark_stays_with_its_sentence():
    assert sentences("He calls it a “mill for ideas.” We agree.") == [
        "He calls it a “mill for ideas.”",
        "We agree.",
    ]


def test_a_paragraph_that_is_emphasised_as_a_whole_is_no_prose():
    assert first_prose("*Photo: Ada Mill*\n\n**“Well!”** she said.\n\nMore.") == "**“Well!”** she said."


def test_a_decimal_point_ends_no_sentence():
    assert sentences("It costs £7.40 a day. Pay by card.") == ["It costs £7.40 a day.", "Pay by card."]


def test_lists_tables_code_and_pictures_are_no_prose():
    text = "![A](http://x/a.png)\n\n- one\n\n| a |\n\n```\nx = 1\n\ny = 2\n```\n\nAt [last](http://x) prose."

    assert first_prose(text) == "At last prose."


@pytest.mark.parametrize(
    ("heading", "text", "answer"),
    [
        (
            "Gift vouchers",
            "Vouchers stay valid for three years. Ask at the gate.",
            "Vouchers stay valid for three years.",
        ),
        (
            "What does it cost?",
            "Prices are fair to all. A place costs £9 a head.",
            "A place costs £9 a head.",
        ),
        ("When does it open?", "We rise early every day. Nobody knows why.", "We rise early every day."),
        ("Is it open?", "Yes. It opens at nine every day.", "Yes. It opens at nine every day."),
        ("Anything", "Do you know?", ""),
        ("Anything", "Here is what you need:", ""),
        ("Only a list", "- one\n- two", ""),
    ],
)
def test_the_telling_sentence_is_the_answer(heading, text, answer):
    assert answer_sentence(heading, text) == answer


def test_a_long_sentence_is_cut_at_a_clause_or_left_out():
    clause = " ".join(["word"] * 20)

    assert answer_sentence("H", f"{clause}, which {clause} {clause}.") == f"{clause}."
    assert answer_sentence("H", f"{clause}; {clause} {clause}.") == f"{clause}."
    assert answer_sentence("H", f"{clause}, {clause} {clause}.") == ""
    assert answer_sentence("H", f"Here ({clause}, which {clause}) are {clause}.") == ""
    assert answer_sentence("H", " ".join(["word"] * 60) + ".") == ""


@pytest.mark.parametrize(
    ("answer", "question", "strings"),
    [
        ("Adults pay £7.40 in winter.", "What does a ticket cost?", ["£7.40"]),
        ("The mill is open from 09:40 to 17:20.", "When is the mill open?", ["09:40", "17:20"]),
        ("Ring 01632 960 417 before noon.", "How do I order?", ["01632 960 417"]),
        ("Write to hello@mill.example.", "How do I write?", ["hello@mill.example"]),
        ("Run `sluice archive` first.", "How do I back up?", ["sluice archive"]),
        ("Dough proves for 17 hours here.", "How long?", ["17 hours"]),
        ("The roof carries 86 solar panels.", "How many solar panels?", ["86"]),
        ("It moved on 4 March 2024.", "When?", ["4 March 2024"]),
        ("Stone dresser Caspian Ruddle has 3 tools.", "Who cuts the stones?", ["Caspian Ruddle", "3"]),
        ("The cat is called Bushel.", "What is the cat called?", ["Bushel"]),
        ("In 2025 we saw 268 pairs.", "How many in 2025?", ["268"]),
        ("Dogs are welcome.", "Are dogs allowed?", []),
        ("It is what I’m glad of.", "What?", []),
        ("Spend two setting it up.", "What?", []),
        ("At 18F we like it.", "Who?", []),
        ("The radio sends on 2.4GHz.", "How?", ["2.4GHz"]),
        ("She came on the 4th day.", "When?", ["4th"]),
        ("The grant pays $5B per year.", "How much?", ["$5B"]),
        ("The wheel cost £3m and a roof.", "How much?", ["£3m"]),
        ("It raised €40k from readers.", "How much?", ["€40k"]),
        ("They lent us $1.5 million in all.", "How much?", ["$1.5 million"]),
        ("The bell rings at 10:15:30 each day.", "When?", ["10:15:30"]),
        ("大人の料金は£7.40ポンドです。", "いくら?", []),
        ("Mix it 3:2:1 for mortar.", "How?", ["1"]),
        ("It opens on 3 May 2024.5 or so.", "When?", ["3", "2024.5"]),
        ("End it with `.` and `[1]` here.", "How?", []),
    ],
)
def test_strings_that_carry_the_fact_are_found(answer, question, strings):
    found = fact_strings(answer, question)

    assert found == strings
    assert all(string in answer for string in found)


_PIECES = (
    "£", "$5", "7", ".40", ",", ":", "30", "m", "B", "k", " million", " ", "May", "2024", "`", "[1]", "ポンド", "é",
    "two", "days", "Ada", "Mill", "a@b.c", "%", "-", "½", "ﬁ", "’s",
)  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join) | st.text(max_size=40))
def test_the_answer_itself_is_always_right(answer):
    found = fact_strings(answer, "What?")

    assert not found or is_right(answer, found)
    assert all(found)
