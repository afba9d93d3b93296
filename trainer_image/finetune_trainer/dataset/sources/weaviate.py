"""Documents of a Weaviate collection that others keep. It is only read, a page at a time."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from finetune_contract.run_spec import PropertyNames, SourceSpec, WeaviateSource
from finetune_contract.secret_text import without_margins
from finetune_contract.sections import lines_and_code
from finetune_contract.stage_protocol import weaviate_source_key_env
from finetune_trainer.dataset.knowledge_base.connection import WeaviateServer
from finetune_trainer.dataset.sources.dates import UNDATED, as_utc
from finetune_trainer.dataset.sources.documents_on_disk import DocumentsOnDisk
from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.raw_document import DroppedDocument, Harvest, RawDocument
from finetune_trainer.errors import InvalidRun, SourceRejected, SourceUnavailable
from finetune_trainer.run_log import Progress

logger = logging.getLogger(__name__)

_CODE_SPAN = re.compile(r"`[^`\n]+`")
_HTML = re.compile(
    r"</(p|div|h[1-6]|ul|ol|table|blockquote|figure|section|article|pre)\s*>|<(p|br)\s*/?>", re.IGNORECASE
)


def open_weaviate(
    spec: SourceSpec, environment: Mapping[str, str], credentials_required: bool
) -> WeaviateReader:
    """A reader for a source of kind Weaviate; opens no connection.

    Raises:
        SourceRejected: the spec names a key, `credentials_required`, and it is not in the environment.
    """
    if spec.weaviate is None:
        raise InvalidRun(f"spec.dataset.sources[{spec.name}].weaviate: is not set")
    variable = weaviate_source_key_env(spec.name)
    server = WeaviateServer(
        place=f"spec.dataset.sources[{spec.name}].weaviate",
        url=spec.weaviate.url,
        grpc_port=spec.weaviate.grpc_port,
        collection=spec.weaviate.collection,
        rights="read",
        rejected=SourceRejected,
        unavailable=SourceUnavailable,
        key_reference=spec.weaviate.api_key_secret_ref,
        api_key=without_margins(environment.get(variable, "")),
    )
    server.check_settings(variable, key_required=credentials_required)
    return WeaviateReader(spec.name, spec.weaviate, server)


class WeaviateReader:
    """One collection."""

    def __init__(self, name: str, spec: WeaviateSource, server: WeaviateServer) -> None:
        self._name = name
        self._spec = spec
        self._server = server
        self._folder: Path | None = None

    def check(self) -> None:
        """Prove address, key, and that the collection has the properties of the spec."""
        with self._server.client() as client:
            self._server.check_grpc()
            if not client.collections.exists(self._spec.collection):
                there = ", ".join(sorted(client.collections.list_all(simple=True))) or "no collection"
                raise SourceRejected(
                    f"{self._server.place}.collection: {self._spec.url} has no {self._spec.collection}; it has {there}"
                )
            collection = client.collections.use(self._spec.collection)
            self._check_properties(
                {entry.name: entry.data_type.value for entry in collection.config.get().properties}
            )
            collection.query.fetch_objects(limit=1)

    def _check_properties(self, types: Mapping[str, str]) -> None:
        for field, name in _wanted(self._spec.properties).items():
            place = f"{self._server.place}.properties.{field}"
            if name not in types:
                remedy = "" if field in _NEEDED else ', or set it to "" if there is none'
                raise SourceRejected(
                    f"{place}: {self._spec.collection} has no property {name}; it has "
                    f"{', '.join(sorted(types)) or 'none'}: name one of them{remedy}"
                )
            allowed = _ALLOWED_TYPES.get(field, ("text",))
            if types[name] not in allowed:
                raise SourceRejected(
                    f"{place}: {name} is of type {types[name]}, and {' or '.join(allowed)} is needed; "
                    "name another property"
                )

    def remember_in(self, memory: HarvestMemory) -> None:
        """Nothing is remembered; documents lie in its scratch folder while a run needs them."""
        self._folder = memory.folder

    def read(self, progress: Progress) -> Harvest:
        """Every object; one that cannot be told from another, or opened, is dropped with a reason."""
        dropped: list[DroppedDocument] = []
        documents = DocumentsOnDisk(self._kept(dropped, progress), self._folder).by_identity()
        logger.info(
            "Weaviate read: source=%s documents=%d dropped=%d", self._name, len(documents), len(dropped)
        )
        return Harvest(documents, tuple(dropped))

    def _kept(self, dropped: list[DroppedDocument], progress: Progress) -> Iterator[RawDocument]:
        """Documents as they come; the others go into `dropped`."""
        seen: set[str] = set()
        for number, document in enumerate(self._documents(), start=1):
            if reason := _reason_to_drop(document, seen):
                dropped.append(DroppedDocument(self._name, document.post_id, document.url, reason))
            else:
                yield document
            seen.add(document.post_id)
            progress(number, 0, message=f"reading {self._name}: {self._spec.collection}")

    def _documents(self) -> Iterator[RawDocument]:
        wanted = _wanted(self._spec.properties)
        with self._server.client() as client:
            collection = client.collections.use(self._spec.collection)
            for entry in collection.iterator(return_properties=sorted(set(wanted.values()))):
                yield to_document(
                    self._name, {field: entry.properties.get(name) for field, name in wanted.items()}
                )


_NEEDED = ("id", "title", "content", "url")
_ALLOWED_TYPES: dict[str, tuple[str, ...]] = {
    "id": ("text", "uuid", "int"),
    "date": ("date",),
    "categories": ("text[]", "text"),
    "tags": ("text[]", "text"),
}
"""By field; the others are text."""


def _wanted(names: PropertyNames) -> dict[str, str]:
    """By field, the property that is asked for; fields that the collection does not have are left out."""
    return {field: name for field in PropertyNames.model_fields if (name := getattr(names, field))}


def to_document(source: str, values: Mapping[str, Any]) -> RawDocument:
    """A document from what a collection holds, by field.

    Beside content in HTML the title is HTML too, as a web site gave it out; beside Markdown it is plain text.
    """
    content = str(values.get("content") or "")
    excerpt = str(values.get("excerpt") or "")
    title = str(values.get("title") or "")
    date = values.get("date")
    holds_html = is_html(content)
    return RawDocument(
        source=source,
        post_id="" if values.get("id") is None else str(values["id"]).strip(),
        title_html=title if holds_html else html.escape(title, quote=False),
        excerpt_html=excerpt if holds_html or is_html(excerpt) else html.escape(excerpt, quote=False),
        content_html=content,
        date=(as_utc(date) if isinstance(date, datetime) else "") or UNDATED,
        author=str(values.get("author") or ""),
        categories=_names(values.get("categories")),
        tags=_names(values.get("tags")),
        url=str(values.get("url") or "").strip(),
        is_markdown=not holds_html,
    )


def is_html(content: str) -> bool:
    """Whether content is HTML and not Markdown, which may show HTML in its code."""
    lines = lines_and_code(content.split("\n"))
    return any(not is_code and _HTML.search(_CODE_SPAN.sub("", line)) is not None for line, is_code in lines)


def _names(value: Any) -> tuple[str, ...]:
    """Names of an array, or of one text with commas."""
    entries = value.split(",") if isinstance(value, str) else value or []
    return tuple(dict.fromkeys(name for entry in entries if (name := str(entry).strip())))


def _reason_to_drop(document: RawDocument, seen: set[str]) -> str:
    if not document.post_id:
        return "it has no id"
    if document.post_id in seen:
        return "another object has the same id"
    if not document.url:
        return "it has no address"
    return ""
