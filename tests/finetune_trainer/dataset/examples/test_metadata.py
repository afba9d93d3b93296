"""What is known of a post beside its text."""

from __future__ import annotations

import pytest

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.metadata import in_words, make_metadata


def post(number: int, title: str = "", **known: object) -> Document:
    return Document(
        source="site",
        post_id=str(number),
        post_title=title or f"Story {number}",
        post_excerpt="",
        post_content="Some text.",
        post_date=f"2025-03-{number:02d}T09:00:00Z",
        post_author=str(known.get("author", "")),
        post_categories=list(known.get("categories", [])),  # type: ignore[call-overload]
        post_tags=list(known.get("tags", [])),  # type: ignore[call-overload]
        post_url=f"http://s/{number}",
    )


def answers(*documents: Document, held: tuple[str, ...] = ()) -> dict[str, str]:
    corpus = Corpus(documents)
    return {
        d.example.question: d.example.answer for d in make_metadata(corpus.without(held) if held else corpus)
    }


def test_date_author_categories_and_tags_of_a_post_are_asked_for():
    told = answers(post(4, "Rye", author="Ada Mill", categories=["Blogs", "Baking"], tags=["rye", "oats"]))

    assert told["When was “Rye” published?"] == "“Rye” was published on 4 March 2025."
    assert told["Who wrote “Rye”?"] == "“Rye” was written by Ada Mill."
    assert told["What categories does “Rye” belong to?"] == "“Rye” is in the categories Blogs and Baking."
    assert told["Which tags does “Rye” have?"] == "“Rye” is tagged rye and oats."


def test_what_is_not_known_is_not_asked_for():
    questions = " ".join(answers(post(4, "Rye")))

    assert "wrote" not in questions
    assert "tag" not in questions
    assert "categor" not in questions


def test_a_title_that_two_posts_share_names_none():
    assert answers(post(1, "Rye"), post(2, "rye"), post(3, "Untitled")) == {}


def test_few_posts_of_an_author_are_listed_and_of_many_the_latest_is_told():
    few = answers(*(post(number, author="Ada", categories=["Baking"]) for number in (1, 2)))
    many = answers(*(post(number, author="Ada", categories=["Baking"]) for number in range(1, 6)))

    assert few["Which posts are by Ada?"] == "“Story 2” and “Story 1” are by Ada."
    assert few["Which posts are in Baking?"] == "“Story 2” and “Story 1” are in Baking."
    latest = "“Story 5”, published on 5 March 2025."
    assert many["What is the latest post by Ada?"] == f"The latest post by Ada is {latest}"
    assert many["What is the latest post in Baking?"] == f"The latest post in Baking is {latest}"


def test_a_list_that_would_name_a_post_that_is_not_taught_is_left_out():
    posts = [post(number, author="Ada") for number in range(1, 6)]

    told = answers(*posts, held=("http://s/5",))

    assert "What is the latest post by Ada?" not in told
    assert not [question for question in told if "Story 5" in question + told[question]]


def test_the_fact_stands_in_the_answer_and_the_prompt_has_no_sources():
    corpus = Corpus([post(1, author="Ada", tags=["a", "b"]), post(2, author="Bo", categories=["C"])])
    for draft in make_metadata(corpus):
        assert draft.example.kind is ExampleKind.METADATA
        assert draft.example.must_contain
        assert all(string in draft.example.answer for string in draft.example.must_contain)
        assert "[1]" not in draft.example.prompt[0].content


@pytest.mark.parametrize(
    ("date", "words"), [("2025-12-01T00:00:00Z", "1 December 2025"), ("", ""), ("soon", "")]
)
def test_a_date_is_told_in_words(date, words):
    assert in_words(date) == words
