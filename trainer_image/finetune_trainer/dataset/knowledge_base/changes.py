"""What to write and what to delete so that a knowledge base equals the documents. Pure; knows no server."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Document
from finetune_trainer.errors import DataRejected

MAX_DELETED_SHARE = 0.2
ALWAYS_DELETABLE = 10
"""A site may always lose fewer posts than this in one run, however small it is."""


@dataclass(frozen=True)
class Changes:
    """What brings the knowledge base to the documents."""

    writes: tuple[Document, ...]
    deletes: tuple[uuid.UUID, ...]


def object_id(source: str, post_id: str) -> uuid.UUID:
    """Identity of a document in the knowledge base: the same over runs, another for every source."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{source}|{post_id}")


def own_documents(found: Mapping[uuid.UUID, Document], sources: Collection[str]) -> dict[uuid.UUID, Document]:
    """The objects that these sources wrote, with the name of their source; it shows in the identity."""
    own: dict[uuid.UUID, Document] = {}
    for identity, document in found.items():
        for source in sources:
            if object_id(source, document.post_id) == identity:
                own[identity] = document.model_copy(update={"source": source})
    return own


def plan_changes(
    documents: Sequence[Document], own: Mapping[uuid.UUID, Document], complete: Mapping[str, bool]
) -> Changes:
    """Write what is new or differs; delete what a source has lost, if that source was read completely.

    Raises:
        DataRejected: a source has lost so much at once that a mistake is likelier than an editor.
    """
    wanted = {object_id(document.source, document.post_id): document for document in documents}
    writes = tuple(document for identity, document in sorted(wanted.items()) if own.get(identity) != document)
    deletes: list[uuid.UUID] = []
    for source, is_complete in sorted(complete.items()):
        if not is_complete:
            continue
        mine = [identity for identity, document in own.items() if document.source == source]
        gone = sorted(identity for identity in mine if identity not in wanted)
        if len(gone) >= ALWAYS_DELETABLE and len(gone) > MAX_DELETED_SHARE * len(mine):
            examples = ", ".join(sorted(own[identity].post_url for identity in gone)[:3])
            raise DataRejected(
                f"spec.dataset.sources[{source}]: {len(gone)} of {len(mine)} documents in the knowledge base are gone "
                f"from the source ({examples}, ...), more than {MAX_DELETED_SHARE:.0%}; nothing was changed. Bring "
                "them back, or name a new collection in spec.dataset.knowledgeBase.weaviate.collection"
            )
        deletes += gone
    return Changes(writes, tuple(deletes))
