"""Which documents count as one."""

from __future__ import annotations

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.examples.duplicates import document_clusters

WORDS = [f"word{number}" for number in range(300)]


def document(number: int, words: list[str]) -> Document:
    return Document(
        source="site",
        post_id=str(number),
        post_title=f"Post {number}",
        post_excerpt="",
        post_content=" ".join(words),
        post_date="2025-01-01T00:00:00Z",
        post_author="",
        post_categories=[],
        post_tags=[],
        post_url=f"http://s/{number}",
    )


def ids(documents: list[Document]) -> list[list[str]]:
    return [[documents[place].post_id for place in members] for members in document_clusters(documents)]


def test_a_copy_with_a_few_other_words_belongs_to_its_original():
    copied = [*WORDS[:150], "new", *WORDS[151:]]

    assert ids([document(0, WORDS), document(1, WORDS[::-1]), document(2, copied)]) == [["0", "2"], ["1"]]


def test_a_chain_of_copies_is_one_cluster():
    third = [*WORDS[25:], *(f"other{number}" for number in range(25))]
    fifth = [*third[25:], *(f"more{number}" for number in range(25))]

    assert ids([document(0, WORDS), document(1, fifth), document(2, third)]) == [["0", "1", "2"]]


def test_documents_that_share_half_are_two():
    assert ids([document(0, WORDS), document(1, [*WORDS[:150], *WORDS[:150][::-1]])]) == [["0"], ["1"]]


def test_short_and_empty_documents_do_no_harm():
    assert ids([document(0, []), document(1, ["one"]), document(2, ["two"])]) == [["0"], ["1"], ["2"]]


def test_all_copies_of_a_document_are_one_cluster():
    copies = [document(number, WORDS if number % 2 else WORDS[::-1]) for number in range(40)]

    assert ids(copies) == [[str(n) for n in range(0, 40, 2)], [str(n) for n in range(1, 40, 2)]]


def test_of_no_documents_there_is_no_cluster():
    assert ids([]) == []
