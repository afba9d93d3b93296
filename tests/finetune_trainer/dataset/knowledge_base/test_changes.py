"""What is written to and deleted from a knowledge base, as tables of what is wanted and what is there."""

from __future__ import annotations

import uuid

import pytest

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.knowledge_base.changes import object_id, own_documents, plan_changes
from finetune_trainer.errors import DataRejected


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


def stored(*documents: Document) -> dict[uuid.UUID, Document]:
    return {object_id(entry.source, entry.post_id): entry for entry in documents}


def test_an_empty_knowledge_base_gets_everything():
    changes = plan_changes([document(1), document(2)], {}, {"site": True})

    assert {entry.post_id for entry in changes.writes} == {"?p=1", "?p=2"}
    assert changes.deletes == ()


def test_what_is_there_already_is_not_written_again():
    changes = plan_changes([document(1)], stored(document(1)), {"site": True})

    assert changes.writes == changes.deletes == ()


def test_only_what_differs_is_written():
    changes = plan_changes(
        [document(1), document(2, content="new")], stored(document(1), document(2)), {"site": True}
    )

    assert [entry.post_id for entry in changes.writes] == ["?p=2"]


def test_what_a_source_has_lost_is_deleted():
    changes = plan_changes([document(1)], stored(document(1), document(2)), {"site": True})

    assert changes.deletes == (object_id("site", "?p=2"),)


def test_nothing_is_deleted_after_an_incomplete_sweep():
    assert plan_changes([document(1)], stored(document(1), document(2)), {"site": False}).deletes == ()


def test_another_source_keeps_its_documents():
    own = own_documents(stored(document(1), document(2, source="other")), ["site"])

    assert [entry.source for entry in own.values()] == ["site"]
    assert plan_changes([document(1)], own, {"site": True}).deletes == ()


def test_the_same_post_id_of_two_sources_is_two_objects():
    assert object_id("a", "?p=1") != object_id("b", "?p=1")


@pytest.mark.parametrize(
    ("there", "left", "refused"), [(10, 1, False), (100, 80, False), (100, 79, True), (12, 2, True)]
)
def test_a_great_loss_is_refused_and_a_small_one_is_not(there, left, refused):
    have = stored(*[document(number) for number in range(there)])
    wanted = [document(number) for number in range(left)]

    if refused:
        with pytest.raises(DataRejected, match=rf"sources\[site\]: {there - left} of {there} documents"):
            plan_changes(wanted, have, {"site": True})
    else:
        assert len(plan_changes(wanted, have, {"site": True}).deletes) == there - left
