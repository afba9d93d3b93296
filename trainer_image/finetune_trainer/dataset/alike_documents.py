"""Groups of documents that are nearly the same, named for people. Knows no side of the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.examples.duplicates import document_clusters


@dataclass(frozen=True)
class NamedDocument:
    """A document as a person looks it up."""

    title: str
    url: str


Group = tuple[NamedDocument, ...]


def alike_documents(documents: Sequence[Document]) -> tuple[Group, ...]:
    """Every group of at least two, the largest first; in a group the documents stand in their own order."""
    groups = [
        tuple(
            NamedDocument(document.post_title, document.post_url)
            for document in (documents[place] for place in cluster)
        )
        for cluster in document_clusters(documents)
        if len(cluster) > 1
    ]
    return tuple(sorted(groups, key=lambda group: (-len(group), group[0].url)))
