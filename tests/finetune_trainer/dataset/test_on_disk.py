"""Values on disk come back as they were, in their order, and leave no file behind."""

from __future__ import annotations

import pytest

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.on_disk import Chosen, NamelessFile, RowsOnDisk
from finetune_trainer.dataset.sources.documents_on_disk import DocumentsOnDisk
from finetune_trainer.dataset.sources.raw_document import RawDocument


def document(number: int, title: str = "T") -> Document:
    return Document(
        source="site",
        post_id=str(number),
        post_title=title,
        post_excerpt="",
        post_content="Straße “naïve” \U0001f40d\n\nend",
        post_date=f"2025-01-{28 - number:02d}T00:00:00Z",
        post_author="",
        post_categories=["Blogs", "A, B"],
        post_tags=[],
        post_url=f"http://s/{number}",
    )


def raw(post_id: str, content: str) -> RawDocument:
    return RawDocument("site", post_id, "T", "", content, "2025-01-01T00:00:00Z", "", ("a",), (), "http://s/")


def test_rows_come_back_in_their_order(tmp_path):
    documents = [document(number) for number in range(5)]

    rows = RowsOnDisk(iter(documents), Document, tmp_path / "new")

    assert rows == documents
    assert documents == rows
    assert rows[-1] == documents[-1]
    assert rows[1:3] == tuple(documents[1:3])
    assert list(reversed(rows)) == documents[::-1]
    with pytest.raises(IndexError):
        rows[5]


def test_rows_are_sorted_by_a_key_and_equals_keep_their_order():
    documents = [document(0, "b"), document(1, "a"), document(2, "b"), document(3, "a")]

    rows = RowsOnDisk(documents, Document, key=lambda row: row.post_title)

    assert [row.post_id for row in rows] == ["1", "3", "0", "2"]


def test_rows_differ_where_one_of_them_does():
    rows = RowsOnDisk([document(1), document(2)], Document)

    assert rows != [document(1), document(3)]
    assert rows != [document(1)]
    assert rows != "ab"
    assert RowsOnDisk([], Document) == ()


def test_some_rows_are_chosen_by_their_indexes():
    rows = RowsOnDisk([document(number) for number in range(4)], Document)

    assert Chosen(rows, [3, 1]) == [document(3), document(1)]


def test_no_file_is_left_with_a_name(tmp_path):
    file = NamelessFile(tmp_path / "scratch")
    place = file.append(b"words")

    assert file.read(place) == b"words"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_last_document_of_an_identity_takes_the_place_of_the_first():
    documents = DocumentsOnDisk([raw("b", "first"), raw("a", "\ud83d half")])
    documents.put(raw("b", "second"))

    assert [(entry.post_id, entry.content_html) for entry in documents] == [
        ("b", "second"),
        ("a", "\ud83d half"),
    ]
    assert [entry.post_id for entry in documents.by_identity()] == ["a", "b"]
