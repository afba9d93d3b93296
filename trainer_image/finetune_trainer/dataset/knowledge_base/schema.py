"""The nine properties of the knowledge base: how they are indexed, how a document fills them. Opens no connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from weaviate.classes.config import DataType, Property, Tokenization
from weaviate.collections.classes.config import CollectionConfig, PropertyConfig

from finetune_contract.artifacts import Document

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


def collection_differences(found: CollectionConfig) -> list[str]:
    """In words, how a collection differs from ours, its vectors left out; empty when it does not."""
    differences = schema_differences([PropertyTraits.of(entry) for entry in found.properties])
    differences += [f"{entry.name} is not one of the nine" for entry in found.references]
    if found.multi_tenancy_config.enabled:
        differences.append("it has tenants")
    return differences


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
        post_date=utc(date) if isinstance(date, datetime) else "",
        post_author=properties.get("postAuthor") or "",
        post_categories=list(properties.get("postCategories") or []),
        post_tags=list(properties.get("postTags") or []),
        post_url=properties.get("postUrl") or "",
    )


def utc(date: datetime) -> str:
    """RFC 3339 with whole seconds, as documents hold it."""
    return date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
