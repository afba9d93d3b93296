"""Weaviate as the knowledge base: one collection with nine properties, kept equal to the documents.

BM25 answers readers' questions and needs no model; vectors are an offer beside it. An existing collection is never
changed to fit; another schema is an error that lists the differences.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import weaviate
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter
from weaviate.exceptions import UnexpectedStatusCodeError, WeaviateInsertManyAllFailedError

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import SourceSpec, WeaviateSpec
from finetune_contract.secret_text import without_margins
from finetune_contract.stage_protocol import ENV_WEAVIATE_API_KEY
from finetune_trainer.dataset.cleaned_documents import in_order
from finetune_trainer.dataset.knowledge_base.changes import (
    Changes,
    SourceRead,
    StoredDocument,
    document_digest,
    in_batches,
    name_some,
    object_id,
    owner_of,
    plan_changes,
)
from finetune_trainer.dataset.knowledge_base.connection import WeaviateServer
from finetune_trainer.dataset.knowledge_base.schema import (
    PROPERTIES,
    collection_differences,
    from_properties,
    to_properties,
)
from finetune_trainer.dataset.knowledge_base.vectors import (
    Vectoriser,
    description,
    vector_config,
    vector_differences,
)
from finetune_trainer.dataset.on_disk import RowsOnDisk
from finetune_trainer.errors import InvalidRun, KnowledgeBaseRejected, KnowledgeBaseUnavailable

logger = logging.getLogger(__name__)

PLACE = "spec.dataset.knowledgeBase.weaviate"
BATCH_SIZE = 50
BATCH_CHARACTERS = 1_000_000
"""Far below the 10 MB that a server takes in one message, whatever the script."""
SHOWN_MESSAGES = 5
_ALL_FAILED = "Every object failed during insertion. Here is the set of all errors: "

Collection = Any
"""weaviate's own type has parameters that say nothing here."""


@dataclass(frozen=True)
class FailedWrite:
    """A document that Weaviate did not take, and what it said."""

    document: Document
    message: str


class WeaviateKnowledgeBase:
    """One collection. Every method opens its own connection and closes it."""

    def __init__(
        self, spec: WeaviateSpec, environment: Mapping[str, str], vectoriser: Vectoriser | None = None
    ) -> None:
        """`vectoriser` is needed with spec.vectors.sentence_model, and not used otherwise."""
        self._spec = spec
        self._vectoriser = vectoriser if spec.vectors and spec.vectors.sentence_model else None
        self._server = WeaviateServer(
            place=PLACE,
            url=spec.url,
            grpc_port=spec.grpc_port,
            collection=spec.collection,
            rights="read and write",
            rejected=KnowledgeBaseRejected,
            unavailable=KnowledgeBaseUnavailable,
            key_reference=spec.api_key_secret_ref,
            api_key=without_margins(environment.get(ENV_WEAVIATE_API_KEY, "")),
        )

    def refuse_as_source(self, sources: Sequence[SourceSpec]) -> None:
        """A run that reads what it writes would double it.

        Raises:
            InvalidRun: one of the sources is this very collection.
        """
        for source in sources:
            if source.weaviate is not None and (
                source.weaviate.url.rstrip("/") == self._spec.url.rstrip("/")
                and source.weaviate.collection == self._spec.collection
            ):
                raise InvalidRun(
                    f"spec.dataset.sources[{source.name}].weaviate.collection: {self._spec.collection} is the "
                    f"knowledge base of this run, which would be doubled; set {PLACE}.collection to another name"
                )

    def check(self) -> None:
        """Prove REST, gRPC, the key and the schema; make the collection when it is missing."""
        self._server.check_settings(ENV_WEAVIATE_API_KEY)
        with self._server.client() as client:
            self._server.check_grpc()
            self._check_module(client)
            identity = self._vectoriser.identity() if self._vectoriser else ""
            if not client.collections.exists(self._spec.collection):
                self._create(client, identity)
            collection = client.collections.use(self._spec.collection)
            found = collection.config.get()
            differences = collection_differences(found)
            differences += vector_differences(found, self._spec.vectors, identity)
            if differences:
                raise KnowledgeBaseRejected(
                    f"{PLACE}.collection: {self._spec.collection} has another schema ({'; '.join(differences)}); "
                    "name another collection, or delete this one"
                )
            collection.query.fetch_objects(limit=1)

    def synchronise(
        self,
        documents: Sequence[Document],
        reads: Mapping[str, SourceRead],
        done: Callable[[int, int], None] = lambda step, total: None,
    ) -> Changes:
        """Make the collection hold these documents; what other sources wrote is left alone.

        A run that was cut off anywhere is made good by the next one: writes go by identity, deletes come last.

        Args:
            documents: what the sources hold now.
            reads: by name of source, how it was read.
            done: hears how many of the writes are done.
        Raises:
            DataRejected: a source has lost too much; nothing was changed.
            KnowledgeBaseUnavailable: Weaviate stopped answering, or did not store what it was given.
        """
        with self._server.client() as client:
            collection = client.collections.use(self._spec.collection)
            own = self._stored(collection, reads.keys())
            changes = plan_changes(documents, own, reads)
            self._write(collection, changes.writes, done)
            for start in range(0, len(changes.deletes), BATCH_SIZE):
                self._delete(collection, changes.deletes[start : start + BATCH_SIZE])
            written = {object_id(document.source, document.post_id) for document in changes.writes}
            expected = (own.keys() | written) - set(changes.deletes)
            self._check_count(collection, reads.keys(), len(expected))
        logger.info(
            "Weaviate synchronised: collection=%s written=%d deleted=%d",
            self._spec.collection, len(changes.writes), len(changes.deletes),
        )  # fmt: skip
        return changes

    def snapshot(self, sources: Sequence[str], folder: Path | None = None) -> Sequence[Document]:
        """What the collection holds of these sources, in the order of date and identity; on disk, in `folder`."""
        with self._server.client() as client:
            collection = client.collections.use(self._spec.collection)
            found = (
                document.model_copy(update={"source": source})
                for identity, document in _objects(collection)
                if (source := owner_of(identity, document.post_id, sources)) is not None
            )
            return RowsOnDisk(found, Document, folder, in_order)

    def _create(self, client: weaviate.WeaviateClient, identity: str) -> None:
        try:
            client.collections.create(
                self._spec.collection,
                description=description(self._spec.vectors, identity),
                properties=[entry.as_property() for entry in PROPERTIES],
                vector_config=vector_config(self._spec.vectors),
            )
        except UnexpectedStatusCodeError:
            if not client.collections.exists(self._spec.collection):  # another run was quicker
                raise
        logger.info("Weaviate collection made: collection=%s", self._spec.collection)

    def _check_module(self, client: weaviate.WeaviateClient) -> None:
        module = self._spec.vectors.module if self._spec.vectors else None
        if module is None:
            return
        modules = client.get_meta().get("modules") or {}
        if module not in modules:
            offered = ", ".join(sorted(name for name in modules if name.startswith("text2vec-"))) or "none"
            raise KnowledgeBaseRejected(
                f"{PLACE}.vectors.module: {self._spec.url} has no module {module} (text2vec modules there: {offered}); "
                "enable it on the server (ENABLE_MODULES), or use sentenceModel, which needs none"
            )

    def _stored(self, collection: Collection, sources: Any) -> dict[uuid.UUID, StoredDocument]:
        """The objects that these sources wrote, as digests."""
        own: dict[uuid.UUID, StoredDocument] = {}
        for identity, document in _objects(collection):
            if (source := owner_of(identity, document.post_id, sources)) is not None:
                own[identity] = StoredDocument(source, document.post_id, document_digest(document))
        return own

    def _write(
        self, collection: Collection, documents: Sequence[Document], done: Callable[[int, int], None]
    ) -> None:
        failed: list[FailedWrite] = []
        step = 0
        for batch in in_batches(documents, BATCH_SIZE, BATCH_CHARACTERS):
            failed += self._insert(collection, batch)
            step += len(batch)
            done(step, len(documents))
        again, failed = failed, []
        for batch in in_batches([entry.document for entry in again], BATCH_SIZE, BATCH_CHARACTERS):
            failed += self._insert(collection, batch)
        if failed:
            messages = "; ".join(list(dict.fromkeys(entry.message for entry in failed))[:SHOWN_MESSAGES])
            raise KnowledgeBaseUnavailable(
                f"{PLACE}.url: {self._spec.url} did not store {len(failed)} of {len(documents)} objects, tried twice "
                f"({messages}); {self._why_not_stored()} "
                f"Not stored: {name_some(entry.document.post_id for entry in failed)}"
            )

    def _why_not_stored(self) -> str:
        module = self._spec.vectors.module if self._spec.vectors else None
        if module is not None:
            return f"does the server reach the model of {module}, and has its disk space?"
        return "is its disk full or read-only?"

    def _insert(self, collection: Collection, documents: Sequence[Document]) -> list[FailedWrite]:
        """Write by identity: what is there is replaced. The client raises for failed objects only when all failed."""
        vectors = self._vectoriser.vectors(documents) if self._vectoriser else [None] * len(documents)
        rows = [
            DataObject(
                properties=to_properties(document),
                uuid=object_id(document.source, document.post_id),
                vector=vector,
            )
            for document, vector in zip(documents, vectors, strict=True)
        ]
        try:
            errors = collection.data.insert_many(rows).errors
        except WeaviateInsertManyAllFailedError as error:
            return [FailedWrite(document, _short(error.message)) for document in documents]
        return [FailedWrite(documents[index], _short(entry.message)) for index, entry in errors.items()]

    def _delete(self, collection: Collection, identities: Sequence[uuid.UUID]) -> None:
        outcome = collection.data.delete_many(where=Filter.by_id().contains_any(list(identities)))
        if outcome.failed:
            raise KnowledgeBaseUnavailable(
                f"{PLACE}.url: {self._spec.url} did not delete {outcome.failed} of {len(identities)} objects; "
                "is its disk full or read-only?"
            )

    def _check_count(self, collection: Collection, sources: Any, expected: int) -> None:
        """Ask the server how many there are; a batch that it took is not yet a batch that it kept."""
        total = collection.aggregate.over_all(total_count=True).total_count
        if total == expected:
            return
        found = sum(  # objects of others may stand here too: count ours alone
            owner_of(entry.uuid, str(entry.properties.get("postId") or ""), sources) is not None
            for entry in collection.iterator(return_properties=["postId"])
        )
        if found != expected:
            raise KnowledgeBaseUnavailable(
                f"{PLACE}.collection: {self._spec.collection} holds {found} of our documents after the write and "
                f"{expected} were expected; does another run write into it, or is its disk full?"
            )


def _objects(collection: Collection) -> Iterator[tuple[uuid.UUID, Document]]:
    """All objects, a page at a time."""
    for entry in collection.iterator():
        yield entry.uuid, from_properties(entry.properties)


def _short(message: str) -> str:
    return " ".join(message.removeprefix(_ALL_FAILED).split())[:200]
