"""What to write and what to delete so that a knowledge base equals the documents. Pure; knows no server.

What is there already is known by its digest alone, so that the two sides are never in memory together.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.on_disk import Chosen
from finetune_trainer.errors import DataRejected

NAMED_IDS = 10
"""An error names this many documents; the rest are a number."""


@dataclass(frozen=True)
class SourceRead:
    """How a source was read, and how much of it may vanish at once."""

    complete: bool
    max_delete_fraction: float = 0.2


@dataclass(frozen=True)
class StoredDocument:
    """An object of ours in the knowledge base."""

    source: str
    post_id: str
    digest: bytes


@dataclass(frozen=True)
class Changes:
    """What brings the knowledge base to the documents."""

    writes: Sequence[Document]
    """In the order of their identities there; may lie on disk."""
    deletes: tuple[uuid.UUID, ...]


def object_id(source: str, post_id: str) -> uuid.UUID:
    """Identity of a document in the knowledge base: the same over runs, another for every source."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{source}|{post_id}")


def document_digest(document: Document) -> bytes:
    """sha256 of the nine properties; the source is no part, because the knowledge base does not hold it."""
    return hashlib.sha256(_canonical(document.model_copy(update={"source": ""}))).digest()


def owner_of(identity: uuid.UUID, post_id: str, sources: Collection[str]) -> str | None:
    """Which of the sources wrote an object; it shows in the identity."""
    return next((source for source in sources if object_id(source, post_id) == identity), None)


def plan_changes(
    documents: Sequence[Document],
    own: Mapping[uuid.UUID, StoredDocument],
    reads: Mapping[str, SourceRead],
) -> Changes:
    """Write what is new or differs; delete what a source has lost, if that source was read completely.

    Raises:
        DataRejected: a source has lost so much at once that a mistake is likelier than an editor.
    """
    wanted: dict[uuid.UUID, tuple[int, bytes]] = {}
    for place, document in enumerate(documents):
        wanted[object_id(document.source, document.post_id)] = place, document_digest(document)
    writes = Chosen(
        documents,
        [
            place
            for identity, (place, digest) in sorted(wanted.items())
            if identity not in own or own[identity].digest != digest
        ],
    )
    deletes: list[uuid.UUID] = []
    for source, read in sorted(reads.items()):
        if not read.complete:
            continue
        mine = [identity for identity, stored in own.items() if stored.source == source]
        gone = sorted(identity for identity in mine if identity not in wanted)
        if len(gone) > read.max_delete_fraction * len(mine):
            raise DataRejected(
                f"spec.dataset.sources[{source}].maxDeleteFraction: {len(gone)} of {len(mine)} documents in the "
                f"knowledge base are gone from the source, more than {read.max_delete_fraction:.0%}; nothing was "
                f"changed. Bring them back, or raise maxDeleteFraction if they are meant to go. "
                f"Gone: {name_some(own[identity].post_id for identity in gone)}"
            )
        deletes += gone
    return Changes(writes, tuple(deletes))


def name_some(names: Iterable[str]) -> str:
    """The first names in order, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMED_IDS} more" if len(ordered) > NAMED_IDS else ""
    return ", ".join(ordered[:NAMED_IDS]) + more


def in_batches(documents: Iterable[Document], size: int, size_characters: int) -> Iterator[list[Document]]:
    """Documents in their order, so many and so large at once; one that is larger stands alone."""
    batch: list[Document] = []
    held = 0
    for document in documents:
        weight = len(document.post_content) + len(document.post_excerpt) + len(document.post_title)
        if batch and (len(batch) == size or held + weight > size_characters):
            yield batch
            batch, held = [], 0
        batch.append(document)
        held += weight
    if batch:
        yield batch


def _canonical(document: Document) -> bytes:
    return json.dumps(document.to_wire(), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
