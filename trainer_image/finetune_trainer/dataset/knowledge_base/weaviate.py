"""Weaviate as the knowledge base: one collection with nine properties. The only file here that knows its client.

There are no vectors: readers' questions are answered by BM25, which needs no model. An existing collection is
never changed to fit; another schema is an error that lists the differences.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import weaviate
from weaviate.classes.config import DataType, Property, Tokenization
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.collections.classes.config import PropertyConfig
from weaviate.exceptions import (
    AuthenticationFailedError,
    InsufficientPermissionsError,
    UnexpectedStatusCodeError,
    WeaviateBaseError,
    WeaviateConnectionError,
    WeaviateGRPCUnavailableError,
    WeaviateStartUpError,
    WeaviateTimeoutError,
)

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import WeaviateSpec
from finetune_contract.stage_protocol import ENV_WEAVIATE_API_KEY
from finetune_trainer.dataset.knowledge_base.changes import Changes, object_id, own_documents, plan_changes
from finetune_trainer.errors import KnowledgeBaseRejected, KnowledgeBaseUnavailable

logger = logging.getLogger(__name__)

PLACE = "spec.dataset.knowledgeBase.weaviate"
CONNECT_SECONDS = 5
BATCH_SIZE = 50

_WORD, _FIELD = Tokenization.WORD, Tokenization.FIELD


@dataclass(frozen=True)
class PropertyTraits:
    """What makes one property what it is."""

    name: str
    type: DataType
    tokenization: Tokenization | None
    filterable: bool
    searchable: bool
    ranged: bool = False

    def as_property(self) -> Property:
        """The form in which the client makes it."""
        return Property(
            name=self.name,
            data_type=self.type,
            tokenization=self.tokenization,
            index_filterable=self.filterable,
            index_searchable=self.searchable,
            index_range_filters=self.ranged,
        )

    @classmethod
    def of(cls, found: PropertyConfig) -> PropertyTraits:
        """What a server says of a property; tokenization means nothing for what is no text."""
        is_text = found.data_type in {DataType.TEXT, DataType.TEXT_ARRAY}
        return cls(
            name=found.name,
            type=found.data_type,
            tokenization=found.tokenization if is_text else None,
            filterable=bool(found.index_filterable),
            searchable=bool(found.index_searchable),
            ranged=bool(found.index_range_filters),
        )


PROPERTIES: tuple[PropertyTraits, ...] = (
    PropertyTraits("postId", DataType.TEXT, _FIELD, filterable=True, searchable=True),
    PropertyTraits("postTitle", DataType.TEXT, _WORD, filterable=True, searchable=True),
    PropertyTraits("postExcerpt", DataType.TEXT, _WORD, filterable=False, searchable=True),
    PropertyTraits("postContent", DataType.TEXT, _WORD, filterable=False, searchable=True),
    PropertyTraits("postDate", DataType.DATE, None, filterable=True, searchable=False, ranged=True),
    PropertyTraits("postAuthor", DataType.TEXT, _FIELD, filterable=True, searchable=True),
    PropertyTraits("postCategories", DataType.TEXT_ARRAY, _FIELD, filterable=True, searchable=False),
    PropertyTraits("postTags", DataType.TEXT_ARRAY, _FIELD, filterable=True, searchable=False),
    PropertyTraits("postUrl", DataType.TEXT, _FIELD, filterable=True, searchable=False),
)
"""The nine. Categories and tags are arrays, so that a filter on `Data` cannot match `Data Structure`; names that are
whole things (ids, authors, addresses) are one token each, so that Equal is exact."""


class WeaviateKnowledgeBase:
    """One collection. Every method opens its own connection and closes it."""

    def __init__(self, spec: WeaviateSpec, environment: Mapping[str, str]) -> None:
        self._spec = spec
        self._api_key = environment.get(ENV_WEAVIATE_API_KEY, "").strip()
        parts = urlsplit(spec.url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)

    def check(self) -> None:
        """Prove REST, gRPC, the key and the schema; make the collection when it is missing."""
        if self._spec.api_key_secret_ref is not None and not self._api_key:
            raise KnowledgeBaseRejected(
                f"{PLACE}.apiKeySecretRef: the Secret {self._spec.api_key_secret_ref.name} has no value under "
                f"{self._spec.api_key_secret_ref.key} (it reaches the stage as {ENV_WEAVIATE_API_KEY})"
            )
        if self._spec.grpc_port == self._port:
            raise KnowledgeBaseRejected(
                f"{PLACE}.grpcPort: {self._port} is the REST port of {self._spec.url}; gRPC has a port of its own, "
                "50051 unless it was changed"
            )
        with self._client() as client:
            self._check_grpc()
            if not client.collections.exists(self._spec.collection):
                client.collections.create(
                    self._spec.collection, properties=[entry.as_property() for entry in PROPERTIES]
                )
                logger.info("Weaviate collection made: collection=%s", self._spec.collection)
            found = client.collections.use(self._spec.collection).config.get().properties
            differences = schema_differences([PropertyTraits.of(entry) for entry in found])
            if differences:
                raise KnowledgeBaseRejected(
                    f"{PLACE}.collection: {self._spec.collection} has another schema ({'; '.join(differences)}); "
                    "name another collection, or delete this one"
                )
            client.collections.use(self._spec.collection).query.fetch_objects(limit=1)

    def synchronise(self, documents: Sequence[Document], complete: Mapping[str, bool]) -> Changes:
        """Make the collection hold these documents; what other sources wrote is left alone.

        Args:
            documents: what the sources hold now.
            complete: by name of source, whether it was read completely.
        Raises:
            DataRejected: a source has lost too much; nothing was changed.
        """
        with self._client() as client:
            changes = plan_changes(
                documents, own_documents(self._read_all(client), complete.keys()), complete
            )
            collection = client.collections.use(self._spec.collection)
            if changes.writes:
                with collection.batch.fixed_size(BATCH_SIZE, concurrent_requests=1) as batch:
                    for document in changes.writes:
                        batch.add_object(
                            properties=to_properties(document),
                            uuid=object_id(document.source, document.post_id),
                        )
                if failed := collection.batch.failed_objects:
                    facts = "; ".join(sorted({" ".join(entry.message.split())[:200] for entry in failed})[:3])
                    raise KnowledgeBaseUnavailable(
                        f"{PLACE}.url: {self._spec.url} did not store {len(failed)} of {len(changes.writes)} objects "
                        f"({facts}); is its disk full or read-only?"
                    )
            for identity in changes.deletes:
                collection.data.delete_by_id(identity)
        logger.info(
            "Weaviate synchronised: collection=%s written=%d deleted=%d",
            self._spec.collection, len(changes.writes), len(changes.deletes),
        )  # fmt: skip
        return changes

    def snapshot(self, sources: Sequence[str]) -> list[Document]:
        """What the collection holds of these sources, in the order of date and identity."""
        with self._client() as client:
            found = own_documents(self._read_all(client), sources)
        return sorted(
            found.values(), key=lambda document: (document.post_date, document.post_id, document.source)
        )

    def _read_all(self, client: weaviate.WeaviateClient) -> dict[uuid.UUID, Document]:
        objects = client.collections.use(self._spec.collection).iterator()
        return {found.uuid: from_properties(found.properties) for found in objects}

    @contextmanager
    def _client(self) -> Iterator[weaviate.WeaviateClient]:
        """A connection; every error of the client leaves as one of ours.

        The client's own first checks are skipped, because they ask pypi.org whether the client is new.
        """
        try:
            with weaviate.connect_to_custom(
                http_host=self._host,
                http_port=self._port,
                http_secure=self._secure,
                grpc_host=self._host,
                grpc_port=self._spec.grpc_port,
                grpc_secure=self._secure,
                auth_credentials=Auth.api_key(self._api_key) if self._api_key else None,
                additional_config=AdditionalConfig(
                    timeout=Timeout(init=CONNECT_SECONDS, query=20, insert=60)
                ),
                skip_init_checks=True,
            ) as client:
                yield client
        except WeaviateBaseError as error:
            raise self._translated(error) from error

    def _check_grpc(self) -> None:
        """The client itself would try a wrong port for more than a minute."""
        address = f"{self._host}:{self._spec.grpc_port}"
        if self._secure:
            channel = grpc.secure_channel(address, grpc.ssl_channel_credentials())
        else:
            channel = grpc.insecure_channel(address)
        with channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
            except grpc.FutureTimeoutError as error:
                raise KnowledgeBaseUnavailable(
                    f"{PLACE}.grpcPort: nothing speaks gRPC at {address}; correct the port, "
                    "or open it beside the REST port"
                ) from error

    def _translated(self, error: WeaviateBaseError) -> KnowledgeBaseRejected | KnowledgeBaseUnavailable:
        fact = " ".join(str(error).split())[:300]
        status = error.status_code if isinstance(error, UnexpectedStatusCodeError) else 0
        refused = isinstance(error, AuthenticationFailedError | InsufficientPermissionsError)
        if refused or status in {401, 403} or "UNAUTHENTICATED" in fact or "PERMISSION_DENIED" in fact:
            return KnowledgeBaseRejected(
                f"{PLACE}.apiKeySecretRef: {self._spec.url} refuses the key; correct the Secret, and give its user "
                f"the right to read and write {self._spec.collection}"
            )
        if isinstance(error, WeaviateGRPCUnavailableError):
            return KnowledgeBaseUnavailable(
                f"{PLACE}.grpcPort: {self._host}:{self._spec.grpc_port} does not speak gRPC; correct the port"
            )
        if isinstance(error, WeaviateStartUpError) and "not supported" in fact:
            return KnowledgeBaseRejected(f"{PLACE}.url: {self._spec.url} is too old ({fact})")
        if isinstance(error, WeaviateConnectionError | WeaviateStartUpError | WeaviateTimeoutError):
            return KnowledgeBaseUnavailable(
                f"{PLACE}.url: {self._spec.url} does not answer ({fact}); check the address and that Weaviate runs"
            )
        if 400 <= status < 500 and status != 429:
            return KnowledgeBaseRejected(f"{PLACE}: {self._spec.url} refused the request ({fact})")
        return KnowledgeBaseUnavailable(f"{PLACE}: {self._spec.url} failed ({fact}); it is tried again")


def schema_differences(found: Sequence[PropertyTraits]) -> list[str]:
    """In words, how properties differ from the nine; empty when they are the same."""
    wanted = {entry.name: entry for entry in PROPERTIES}
    actual = {entry.name: entry for entry in found}
    differences = [f"{name} is missing" for name in wanted if name not in actual]
    differences += [f"{name} is not one of the nine" for name in actual if name not in wanted]
    for name, traits in wanted.items():
        for trait, value in asdict(traits).items():
            if name in actual and (other := getattr(actual[name], trait)) != value:
                differences.append(f"{name}: {trait} is {_word(other)} instead of {_word(value)}")
    return differences


def _word(value: object) -> str:
    return str(value.value) if isinstance(value, Enum) else str(value)


def to_properties(document: Document) -> dict[str, Any]:
    """The nine properties of a document."""
    return {
        "postId": document.post_id,
        "postTitle": document.post_title,
        "postExcerpt": document.post_excerpt,
        "postContent": document.post_content,
        "postDate": datetime.fromisoformat(document.post_date),
        "postAuthor": document.post_author,
        "postCategories": document.post_categories,
        "postTags": document.post_tags,
        "postUrl": document.post_url,
    }


def from_properties(properties: Mapping[str, Any]) -> Document:
    """A document from the nine properties; its source is not among them."""
    date = properties.get("postDate")
    return Document(
        source="",
        post_id=properties.get("postId") or "",
        post_title=properties.get("postTitle") or "",
        post_excerpt=properties.get("postExcerpt") or "",
        post_content=properties.get("postContent") or "",
        post_date=date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(date, datetime) else "",
        post_author=properties.get("postAuthor") or "",
        post_categories=list(properties.get("postCategories") or []),
        post_tags=list(properties.get("postTags") or []),
        post_url=properties.get("postUrl") or "",
    )
