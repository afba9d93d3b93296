"""A walk over one site: every address that is found becomes a document, or is dropped with a reason.

Knows the order of pages and which of them are one; must not know HTTP, HTML or the rules of robots.txt.
"""

from __future__ import annotations

import html
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from finetune_contract.run_spec import WebsiteSource
from finetune_trainer.dataset.sources.documents_on_disk import DocumentsOnDisk
from finetune_trainer.dataset.sources.raw_document import DroppedDocument, Harvest, RawDocument
from finetune_trainer.dataset.sources.website_addresses import Site, file_ending
from finetune_trainer.dataset.sources.website_client import AGENT, WebsiteClient
from finetune_trainer.dataset.sources.website_page import Page, parse_page
from finetune_trainer.errors import SourceUnavailable
from finetune_trainer.run_log import Progress

HTML = ("text/html", "application/xhtml+xml")
MAX_FAILURES_IN_A_ROW = 5
"""So many pages one after the other that the server cannot give: the site is down, not a page."""
_WRITINGS = {".pdf", ".doc", ".docx", ".odt", ".epub", ".pptx", ".ppt", ".rtf"}
"""Files that a reader reads; other files are no documents and are passed over."""


class Crawl:
    """One walk over a site: pages are asked in the order in which they were named, those with a query last."""

    def __init__(
        self,
        name: str,
        spec: WebsiteSource,
        client: WebsiteClient,
        site: Site,
        why_not: Callable[[str], str],
        place: str,
        folder: Path | None = None,
    ) -> None:
        """`folder` is scratch space for the documents."""
        self._name, self._spec, self._client, self._site = name, spec, client, site
        self._why_not, self._place = why_not, place
        self._known: set[str] = set()
        self._waiting: tuple[deque[str], deque[str]] = (deque(), deque())
        self._done: set[str] = set()
        """Addresses whose answer was read, after redirects."""
        self._documents = DocumentsOnDisk(folder=folder)
        self._read_from: dict[str, str] = {}
        """Address that the document of an identity was read from."""
        self._dropped: list[DroppedDocument] = []
        self._failures = 0
        self._complete = True

    def run(self, first: Iterable[str], progress: Progress) -> Harvest:
        """Read from these addresses on, until nothing is left or maxPages is reached."""
        self._add(first)
        asked = 0
        while (page := self._next()) and asked < self._spec.max_pages:
            asked += 1
            self._read(page)
            total = min(self._spec.max_pages, asked + len(self._waiting[0]) + len(self._waiting[1]))
            progress(asked, total, message=f"reading {self._name}")
        if page:
            self._complete = False
            left = 1
            while self._next():
                left += 1
            self._drop(
                page, f"maxPages ({self._spec.max_pages}) was reached; not read: this and {left - 1} more"
            )
        return Harvest(self._documents, tuple(self._dropped), self._complete)

    def _add(self, pages: Iterable[str]) -> None:
        for href in pages:
            page = self._site.page(href)
            if not page or page in self._known:
                continue
            self._known.add(page)
            ending = file_ending(page)
            if ending in _WRITINGS:
                self._drop(page, f"is a {ending} file, not HTML")
            elif not ending and (reason := self._why_not(page)):
                self._drop(page, reason)
            elif not ending:
                self._waiting["?" in page].append(page)

    def _next(self) -> str:
        for queue in self._waiting:
            while queue:
                if (page := queue.popleft()) not in self._done:
                    return page
        return ""

    def _read(self, page: str) -> None:
        answer = self._client.get(self._site, page, HTML, refuse=self._why_not)
        if answer.problem:
            self._drop(page, answer.problem)
            self._note(page, answer.problem if answer.may_pass else "")
            return
        self._failures = 0
        if answer.url in self._done:
            return  # another name of a page that was read
        self._known.add(answer.url)
        self._done.add(answer.url)
        parsed = parse_page(answer.body, answer.url, answer.headers, self._spec.content_selector, AGENT)
        if parsed is None:
            self._drop(answer.url, "is no HTML")
            return
        self._add(parsed.links)
        if parsed.noindex:
            self._drop(answer.url, "asks robots not to keep it (noindex)")
        elif not parsed.content_html:
            self._drop(answer.url, parsed.without_text)
        else:
            self._keep(answer.url, parsed)

    def _keep(self, url: str, page: Page) -> None:
        """One document for each canonical address; the page at that very address comes before its copies."""
        identity = (self._site.page(page.canonical) if page.canonical else "") or url
        if identity == self._site.root:
            identity = url  # some themes call every page the home page
        before = self._read_from.get(identity)
        if before is not None and identity != url:
            self._drop(url, f"is the same page as {identity}")
            return
        if before is not None:
            self._drop(before, f"is the same page as {identity}")
        self._read_from[identity] = url
        facts = page.facts
        self._documents.put(
            RawDocument(
                source=self._name,
                post_id=identity,
                title_html=html.escape(facts.title, quote=False),
                excerpt_html=html.escape(facts.excerpt, quote=False),
                content_html=page.content_html,
                date=facts.date,
                author=facts.author,
                categories=facts.categories,
                tags=facts.tags,
                url=identity,
            )
        )

    def _note(self, page: str, failure: str) -> None:
        """Count pages that the server could not give; they are missing, so nothing may be deleted for it."""
        self._failures = self._failures + 1 if failure else 0
        if not failure:
            return
        self._complete = False
        if self._failures >= MAX_FAILURES_IN_A_ROW:
            raise SourceUnavailable(
                f"{self._place}.url: {page} {failure}, and so did the {self._failures - 1} pages before it; "
                "try again when the site is up, or lower requestsPerSecond"
            )

    def _drop(self, page: str, reason: str) -> None:
        self._dropped.append(DroppedDocument(self._name, page, page, reason))
