from __future__ import annotations

from pathlib import Path

import pytest

from finetune_chat.answering.documents_index import DocumentsFileIndex
from finetune_chat.answering.errors import IndexUnavailable
from finetune_chat.answering.retrieve import FoundDocument, choose, retrieve
from finetune_chat.answering.weaviate_index import search_words
from finetune_contract.artifacts import Document
from finetune_contract.sections import leans_on_previous
from tests.finetune_chat.parts import API, TICKETS, FakeIndex


def test_the_section_that_fits_becomes_the_first_passage() -> None:
    found = choose("What does an adult pay in winter?", [API, TICKETS], min_score=0.35)

    assert (found.passages[0].title, found.passages[0].heading) == ("Ticket prices", "Winter ticket")
    assert found.passages[0].url == TICKETS.url
    assert len(found.passages) <= 2


def test_a_question_that_the_site_does_not_answer_gets_no_passage_but_the_nearest_pages() -> None:
    found = choose("Is there a swimming pool with a winter garden?", [TICKETS, API], min_score=0.35)

    assert not found.fits
    assert [link.title for link in found.nearest] == ["Ticket prices"]


def test_no_page_at_all_is_no_answer() -> None:
    found = choose("Anything?", [], min_score=0.0)

    assert (found.fits, found.nearest, found.score) == (False, (), 0.0)


def test_the_nearest_pages_are_three_different_ones() -> None:
    pages = [
        FoundDocument(f"Mill {n}", f"https://x/{n}", f"## The mill\n\nWheel {n}\n\n## Mill\n\nStone")
        for n in range(9)
    ]

    found = choose("Tell me about mill helicopters", pages, min_score=0.9)

    assert len(set(found.nearest)) == 3


async def test_a_short_follow_up_is_searched_with_the_question_before() -> None:
    index = FakeIndex(TICKETS)

    found = await retrieve(index, "And in summer?", "What does an adult ticket cost in winter?", 0.35)

    assert index.asked == ["What does an adult ticket cost in winter? And in summer?"]
    assert found.passages[0].heading == "Summer ticket"


async def test_an_old_question_does_not_carry_a_new_one_past_the_gate() -> None:
    index = FakeIndex(TICKETS)

    found = await retrieve(index, "And a helicopter?", "What does an adult pay in winter?", 0.35)

    assert not found.fits


async def test_a_whole_question_stands_for_itself() -> None:
    index = FakeIndex(TICKETS, API)

    await retrieve(index, "On which port does the API listen?", "What does an adult pay in winter?", 0.35)

    assert index.asked == ["On which port does the API listen?"]


@pytest.mark.parametrize(
    ("question", "leans"),
    [
        ("And children?", True),
        ("Why?", True),
        ("Does it open on public holidays in winter?", True),
        ("Does the mill have a swimming pool?", False),
    ],
)
def test_follow_ups_are_told_by_their_words(question: str, leans: bool) -> None:
    assert leans_on_previous(question) is leans


def a_row(number: int, content: str) -> str:
    return Document(
        source="site",
        post_id=str(number),
        post_title=f"Page {number}",
        post_excerpt="",
        post_content=content,
        post_date="2025-01-01T00:00:00Z",
        post_author="A",
        post_categories=["Blogs"],
        post_tags=[],
        post_url=f"https://mill.example/{number}/",
    ).model_dump_json(by_alias=True)


async def test_a_laptop_searches_the_documents_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text("\n".join([a_row(1, "Terns breed here."), a_row(2, "Bread is baked."), ""]))
    index = DocumentsFileIndex(path)

    found = await index.search("Which bread do you bake?", 8)
    path.write_text(a_row(3, "Bread again.\nAnd a second line."))

    assert [page.url for page in found] == ["https://mill.example/2/"]
    assert [page.url for page in await index.search("bread", 8)] == ["https://mill.example/3/"]


async def test_a_laptop_searches_text_with_any_line_separator(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text(a_row(1, "Bread\u2028is\x85baked.") + "\n", encoding="utf-8")

    assert [page.content for page in await DocumentsFileIndex(path).search("bread", 8)] == [
        "Bread\u2028is\x85baked."
    ]


async def test_a_file_that_is_no_list_of_documents_is_named(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    with pytest.raises(IndexUnavailable, match=r"documents\.jsonl: FileNotFoundError"):
        await DocumentsFileIndex(path).search("x", 8)
    path.write_text('{"title": 1}\n')
    with pytest.raises(IndexUnavailable, match=r"expected the documents\.jsonl of a run"):
        await DocumentsFileIndex(path).search("x", 8)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What are the prices of a ticket?", "prices ticket price tickets"),
        ("Do you bake in 2025?", "bake 2025 bakes"),
        ("How is it?", "How is it?"),
    ],
)
def test_the_search_asks_for_words_that_carry_meaning_in_singular_and_plural(
    question: str, words: str
) -> None:
    assert search_words(question) == words
