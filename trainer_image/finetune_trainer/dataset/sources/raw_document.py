"""What a source hands on: documents as it holds them, before cleaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RawDocument:
    """A post or page with its HTML; names are resolved, dates are RFC 3339 in UTC."""

    source: str
    post_id: str
    title_html: str
    excerpt_html: str
    content_html: str
    date: str
    author: str
    categories: tuple[str, ...]
    """Names, root first."""
    tags: tuple[str, ...]
    url: str
    is_markdown: bool = False
    """`content_html` holds Markdown already."""


@dataclass(frozen=True)
class DroppedDocument:
    """A document that is left out, and why."""

    source: str
    post_id: str
    url: str
    reason: str


@dataclass(frozen=True)
class Harvest:
    """All that a source gave."""

    documents: Sequence[RawDocument]
    """May lie on disk, each read when it is asked for: go through it, and make no list of it."""
    dropped: tuple[DroppedDocument, ...] = field(default=())
    complete: bool = True
    """False when the source may hold more: then nothing is removed from the knowledge base."""
