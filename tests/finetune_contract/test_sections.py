"""Sections, and finding the ones that fit a question: shared by the dataset stage and the chat."""

from __future__ import annotations

import pytest

from finetune_contract.prompt import user_message
from finetune_contract.sections import (
    Passage,
    PassageIndex,
    Section,
    content_words,
    rank_passages,
    shorten,
    split_sections,
    stem,
    without_links,
)

WINTER = Passage(
    "Ticket prices", "What does a winter ticket cost?", "Adults pay £7.40 from November.", "http://s/t"
)
DOGS = Passage("House rules", "Are dogs allowed?", "Dogs on a lead are welcome in the yard.", "http://s/d")
GATES = Passage("New gates", "Cost of the new gates", "They came to £148,300 in all.", "http://s/g")
PASSAGES = [DOGS, GATES, WINTER]


def test_a_document_is_cut_at_its_headings_and_not_inside_code():
    markdown = "Hello.\n\n## A\n\ntext\n\n```\n# no heading\n```\n\n## Empty\n\n### B ##\n\nmore"

    assert split_sections(markdown) == [
        Section("", "Hello."),
        Section("A", "text\n\n```\n# no heading\n```"),
        Section("B", "more"),
    ]


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ("````\n```\n# x\n```\n# x\n````", ["A"]),
        ("~~~\n```\n# x\n~~~", ["A"]),
        ("```\n# x\n``` no end\n# x\n`````", ["A"]),
        ("- ```\n  # x\n  ```", ["A"]),
        ("1. text\n\n    ```sh\n    # x\n    ```", ["A"]),
        ("> ```\n> # x\n> ```", ["A"]),
        ("```x``` is code in a line", ["A"]),
        ("```\n# x", []),
    ],
)
def test_a_fence_closes_with_at_least_as_many_of_its_own_sign(code, left):
    found = [section.heading for section in split_sections(f"{code}\n\n## A\n\ntext")]

    assert [heading for heading in found if heading] == left


@pytest.mark.parametrize(
    "words",
    [
        ("price", "prices"),
        ("tide", "tides"),
        ("close", "closing", "closed"),
        ("city", "cities"),
        ("mill’s", "mills"),
    ],
)
def test_forms_of_a_word_have_one_stem(words):
    assert len({stem(word) for word in words}) == 1


def test_words_for_the_same_thing_are_one():
    assert (
        content_words("price")
        == content_words("charges")
        == content_words("to pay")
        == content_words("the cost")
    )
    assert content_words("phone") == content_words("telephone")


@pytest.mark.parametrize(
    ("question", "best"),
    [
        ("What do I pay in winter?", WINTER),
        ("May I bring my dog?", DOGS),
        ("What was the price of the gates?", GATES),
    ],
)
def test_the_passage_that_answers_comes_first(question, best):
    ((found, score), *_) = rank_passages(question, PASSAGES, 2)

    assert found == best
    assert 0 < score <= 1


def test_passages_without_any_word_of_the_question_are_left_out():
    assert rank_passages("Is there a bowling alley?", PASSAGES, 3) == []
    assert rank_passages("And the?", PASSAGES, 3) == []
    assert rank_passages("winter", [], 3) == []


def test_an_index_ranks_as_the_function_does():
    index = PassageIndex(PASSAGES)

    for question in ("winter cost", "dogs in winter", "new gates cost"):
        assert index.rank(question, 3) == rank_passages(question, PASSAGES, 3)


def test_where_links_lead_is_not_searched_but_their_text_is():
    passage = Passage(
        "T", "", "![A gate](http://10.0.0.2:8091/g.png) See [the loaf](http://10.0.0.2/rye_(b)).", "u"
    )

    assert rank_passages("10 rye", [passage], 1) == []
    assert rank_passages("gate and loaf", [passage], 1)


def test_links_become_text_and_images_vanish():
    markdown = "See [the (old) gate](http://s/a_(b)) ![A gate](http://s/g.png)and [1]."

    assert without_links(markdown) == "See the (old) gate and [1]."


def test_a_prompt_shows_sources_without_addresses():
    passage = Passage("T", "H", "Ring [the office](tel:+44123).", "http://s/t")

    message = user_message("How?", [passage])

    assert "[1] T: H\nRing the office." in message
    assert "tel:" not in message


def test_a_text_is_shortened_at_a_line():
    assert shorten("a b c\nd e f\ng h i", 7) == "a b c\nd e f\ng"
    assert shorten("a b c", 9) == "a b c"


def test_headings_lose_links_and_emphasis():
    text = "## *Who* is [Ada](https://x.example/ada)?\n\nA miller.\n\n## 2 * 3 * 4\n\nIs 24."

    assert [section.heading for section in split_sections(text)] == ["Who is Ada?", "2 * 3 * 4"]


def test_only_the_best_passages_are_ranked_and_in_the_same_order():
    passages = [
        Passage(f"T{n % 3}", "", f"mill wheel number {n} " + "stone " * (n % 4), "u") for n in range(40)
    ]
    index = PassageIndex(passages)

    whole = index.rank("the mill wheel and its stone", 40)

    assert index.rank("the mill wheel and its stone", 5) == whole[:5]
    assert [score for _, score in whole] == sorted((score for _, score in whole), reverse=True)
    assert index.rank("nothing of it", 5) == []


def test_a_follow_up_counts_twice_and_an_old_question_carries_no_new_one():
    passages = [Passage("Wheel", "Price", "It cost a lot.", "u"), Passage("Wheel", "Age", "It is old.", "u")]

    ranked = PassageIndex(passages).rank_follow_up("price of the wheel? how old is it?", "how old is it?", 2)

    assert [passage.heading for passage, _, _ in ranked] == ["Age", "Price"]
    assert ranked[1][2] == 0
