"""What is written to and deleted from a knowledge base, as tables of what is wanted and what is there."""

from __future__ import annotations

import uuid

import pytest

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.knowledge_base.changes import (
    SourceRead,
    StoredDocument,
    document_digest,
    in_batches,
    name_some,
    object_id,
    owner_of,
    plan_changes,
)
from finetune_trainer.errors import DataRejected

COMPLETE = {"site": SourceRead(complete=True)}


def document(number: int, source: str = "site", content: str = "text") -> Document:
    return Document(
        source=source,
        post_id=f"?p={number}",
        post_title=f"Post {number}",
        post_excerpt="",
        post_content=content,
        post_date="2025-01-01T00:00:00Z",
        post_author="",
        post_categories=[],
        post_tags=[],
        post_url=f"http://site/{number}",
    )


def stored(*documents: Document) -> dict[uuid.UUID, StoredDocument]:
    return {
        object_id(entry.source, entry.post_id): StoredDocument(
            entry.source, entry.post_id, document_digest(entry)
        )
        for entry in documents
    }


def test_an_empty_knowledge_base_gets_everything():
    changes = plan_changes([document(1), document(2)], {}, COMPLETE)

    assert {entry.post_id for entry in changes.writes} == {"?p=1", "?p=2"}
    assert changes.deletes == ()


def test_what_is_there_already_is_not_written_again():
    changes = plan_changes([document(1)], stored(document(1)), COMPLETE)

    assert changes.writes == changes.deletes == ()


@pytest.mark.parametrize("field", sorted(set(Document.model_fields) - {"source", "post_id"}))
def test_a_change_of_any_property_is_written(field):
    value = ["new"] if field in {"post_categories", "post_tags"} else "new"
    edited = document(2).model_copy(update={field: value})

    changes = plan_changes([document(1), edited], stored(document(1), document(2)), COMPLETE)

    assert [entry.post_id for entry in changes.writes] == ["?p=2"]


def test_what_a_source_has_lost_is_deleted():
    have = [document(number) for number in range(10)]

    changes = plan_changes(have[1:], stored(*have), COMPLETE)

    assert changes.deletes == (object_id("site", "?p=0"),)


def test_nothing_is_deleted_after_an_incomplete_sweep():
    reads = {"site": SourceRead(complete=False, max_delete_fraction=1)}

    assert plan_changes([document(1)], stored(document(1), document(2)), reads).deletes == ()


def test_another_source_keeps_its_documents():
    own = stored(document(1), document(2, source="other"))

    assert plan_changes([document(1)], own, COMPLETE).deletes == ()


def test_the_owner_of_an_object_shows_in_its_identity():
    assert owner_of(object_id("b", "?p=1"), "?p=1", ["a", "b"]) == "b"
    assert owner_of(uuid.uuid4(), "?p=1", ["a", "b"]) is None


def test_the_same_post_id_of_two_sources_is_two_objects():
    assert object_id("a", "?p=1") != object_id("b", "?p=1")


def test_the_same_post_twice_is_one_object():
    assert len(plan_changes([document(1), document(1)], {}, COMPLETE).writes) == 1


@pytest.mark.parametrize(
    ("there", "left", "fraction", "refused"),
    [
        (100, 80, 0.2, False),
        (100, 79, 0.2, True),
        (100, 0, 1.0, False),
        (100, 99, 0.0, True),
        (3, 3, 0.0, False),
    ],
)
def test_a_loss_above_the_fraction_of_the_source_is_refused(there, left, fraction, refused):
    have = stored(*[document(number) for number in range(there)])
    wanted = [document(number) for number in range(left)]
    reads = {"site": SourceRead(complete=True, max_delete_fraction=fraction)}

    if refused:
        with pytest.raises(
            DataRejected, match=rf"sources\[site\].maxDeleteFraction: {there - left} of {there} documents"
        ):
            plan_changes(wanted, have, reads)
    else:
        assert len(plan_changes(wanted, have, reads).deletes) == there - left


def test_a_refused_loss_names_the_ids():
    have = stored(*[document(number) for number in range(4)])

    with pytest.raises(DataRejected, match=r"Gone: \?p=1, \?p=2, \?p=3$"):
        plan_changes([document(0)], have, COMPLETE)


def test_many_names_become_a_few_and_a_number():
    names = [f"{number:02d}" for number in range(12)]

    assert name_some(reversed(names)) == "00, 01, 02, 03, 04, 05, 06, 07, 08, 09 and 2 more"


def test_batches_are_bounded_in_number_and_in_size_and_lose_nothing():
    documents = [document(number, content="x" * (100 if number == 3 else 10)) for number in range(8)]

    batches = list(in_batches(documents, size=3, size_characters=60))

    assert [entry for batch in batches for entry in batch] == documents
    assert [len(batch) for batch in batches] == [3, 1, 3, 1]
