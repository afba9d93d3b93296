"""What sources gave, as documents of one form: Markdown for HTML, plain titles, in one order. Knows no source."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.cleaning.html import clean_content, excerpt_text, plain_text
from finetune_trainer.dataset.cleaning.markdown import clean_markdown
from finetune_trainer.dataset.on_disk import RowsOnDisk
from finetune_trainer.dataset.sources.raw_document import DroppedDocument, Harvest, RawDocument
from finetune_trainer.run_log import Progress

logger = logging.getLogger(__name__)

NOTHING_LEFT = "no text is left after cleaning"


@dataclass(frozen=True)
class NotedDocument:
    """A document that was kept, and why a person should look at it."""

    source: str
    post_id: str
    url: str
    reason: str


def clean_harvests(
    harvests: dict[str, Harvest], progress: Progress, folder: Path | None = None
) -> tuple[Sequence[Document], list[DroppedDocument], list[NotedDocument]]:
    """Cleaned documents in the order of date and identity; all that was dropped; and those that want a look.

    The documents lie on disk, in `folder` or the system's own.
    """
    total = sum(len(harvest.documents) for harvest in harvests.values())
    raw = (document for harvest in harvests.values() for document in harvest.documents)
    dropped = [entry for harvest in harvests.values() for entry in harvest.dropped]
    noted: list[NotedDocument] = []

    def cleaned_ones() -> Iterator[Document]:
        for number, document in enumerate(raw, start=1):
            doubts: list[str] = []
            cleaned = clean(document, doubts.append)
            identity = (document.source, document.post_id, document.url)
            if cleaned.post_content:
                yield cleaned
                noted.extend(NotedDocument(*identity, doubt) for doubt in doubts)
            else:
                dropped.append(DroppedDocument(*identity, NOTHING_LEFT))
            progress(number, total, message="cleaning")

    documents = RowsOnDisk(cleaned_ones(), Document, folder, in_order)
    dropped.sort(key=lambda entry: (entry.source, entry.url, entry.post_id))
    noted.sort(key=lambda entry: (entry.source, entry.url, entry.post_id))
    if noted:
        logger.warning(
            "documents should be looked at: number=%d first=%s why=%r",
            len(noted),
            noted[0].url,
            noted[0].reason,
        )
    return documents, dropped, noted


def in_order(document: Document) -> tuple[str, str, str]:
    """The key by which a dataset's documents are sorted."""
    return document.post_date, document.post_id, document.source


def clean(raw: RawDocument, note: Callable[[str], None] = lambda doubt: None) -> Document:
    """One document; `note` hears why somebody should look at it, which is seldom said."""
    if raw.is_markdown:
        content = clean_markdown(raw.content_html)
    else:
        cleaned = clean_content(raw.content_html, raw.url)
        content = cleaned.markdown
        if cleaned.doubt:
            note(cleaned.doubt)
    return Document(
        source=raw.source,
        post_id=raw.post_id,
        post_title=plain_text(raw.title_html) or "Untitled",
        post_excerpt=excerpt_text(raw.excerpt_html),
        post_content=content,
        post_date=raw.date,
        post_author=raw.author,
        post_categories=list(raw.categories),
        post_tags=list(raw.tags),
        post_url=raw.url,
    )
