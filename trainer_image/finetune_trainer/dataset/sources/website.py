"""Pages of any web site: its sitemap first, then its links, as robots.txt allows. Public pages only, no sign-in.

Proves the address, reads robots.txt and sitemaps, and sends the crawl on its way; must not know HTTP or HTML.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import soupsieve

from finetune_contract.run_spec import SourceSpec, WebsiteSource
from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.raw_document import Harvest
from finetune_trainer.dataset.sources.website_addresses import LookUp, Site, look_up, path_of
from finetune_trainer.dataset.sources.website_client import AGENT, WebsiteClient
from finetune_trainer.dataset.sources.website_crawl import HTML, Crawl
from finetune_trainer.dataset.sources.website_robots import (
    MAX_SITEMAP_BYTES,
    Robots,
    parse_robots,
    parse_sitemap,
)
from finetune_trainer.errors import InvalidRun, SourceRejected, SourceUnavailable
from finetune_trainer.run_log import Progress

logger = logging.getLogger(__name__)

MAX_ROBOTS_BYTES = 1 << 20
MAX_SITEMAPS = 1000
MAX_CRAWL_DELAY_SECONDS = 60.0


def open_website(
    spec: SourceSpec,
    environment: Mapping[str, str],
    credentials_required: bool,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    find: LookUp = look_up,
) -> WebsiteReader:
    """A reader for a source of kind website; opens no connection.

    Raises:
        InvalidRun: the address or the selector cannot be.
    """
    if spec.website is None:
        raise InvalidRun(f"spec.dataset.sources[{spec.name}].website: is not set")
    place = f"spec.dataset.sources[{spec.name}].website"
    try:
        site = Site.of(spec.website.url)
    except (ValueError, UnicodeError) as error:
        raise InvalidRun(f"{place}.url: {error}; write it as a reader types it") from error
    try:
        soupsieve.compile(spec.website.content_selector or "*")
    except soupsieve.SelectorSyntaxError as error:
        raise InvalidRun(
            f"{place}.contentSelector: {spec.website.content_selector} is no CSS selector; "
            "write one such as .entry-content"
        ) from error
    client = WebsiteClient(
        place, spec.website.requests_per_second, spec.website.allow_private_addresses, find, sleep, clock
    )
    if certificates := environment.get("REQUESTS_CA_BUNDLE") or environment.get("SSL_CERT_FILE"):
        client.trust(certificates)
    return WebsiteReader(spec.name, spec.website, client, place, site)


class WebsiteReader:
    """One site."""

    def __init__(self, name: str, spec: WebsiteSource, client: WebsiteClient, place: str, site: Site) -> None:
        self._name, self._spec, self._client, self._place, self._site = name, spec, client, place, site
        self._robots: Robots | None = None
        self._folder: Path | None = None

    def check(self) -> None:
        """Prove that robots.txt lets us in and that the first page is HTML of this very site."""
        start = self._start()
        if reason := self._why_not(start):
            raise SourceRejected(
                f"{self._place}.url: {reason}; ask the site's owner to allow {AGENT}, or begin elsewhere"
            )
        answer = self._client.get(self._site, start, HTML, refuse=self._why_not)
        if answer.may_pass:
            raise SourceUnavailable(
                f"{self._place}.url: {start} {answer.problem}; check the address, and that the site is up"
            )
        if answer.problem:
            remedy = (
                "write the address that it leads to"
                if answer.status != 200 and answer.status < 400
                else "write the address of a page"
            )
            raise SourceRejected(f"{self._place}.url: {start} {answer.problem}; {remedy}")
        self._site = Site.of(answer.url)  # a site that moves readers to https is spelled with https

    def remember_in(self, memory: HarvestMemory) -> None:
        """Nothing is remembered; documents lie in its scratch folder while a run needs them."""
        self._folder = memory.folder

    def read(self, progress: Progress) -> Harvest:
        """Every page that can be reached, up to maxPages; not complete when a sitemap that is there was not read."""
        crawl = Crawl(
            self._name, self._spec, self._client, self._site, self._why_not, self._place, self._folder
        )
        pages, all_named = self._in_sitemaps()
        if not pages:
            logger.info("the site has no sitemap and is read by its links: source=%s", self._name)
        harvest = crawl.run([*pages, self._start()], progress)
        harvest = replace(harvest, complete=harvest.complete and all_named)
        if not harvest.documents:
            reasons = Counter(entry.reason for entry in harvest.dropped).most_common(3)
            because = "; ".join(f"{number} x {reason}" for reason, number in reasons)
            raise SourceRejected(
                f"{self._place}.url: no page of {self._site.root} has text ({because or 'it has no pages'}); set "
                "contentSelector to the part that is the text; pages that a script draws cannot be read"
            )
        logger.info(
            "website read: source=%s documents=%d dropped=%d complete=%s",
            self._name, len(harvest.documents), len(harvest.dropped), harvest.complete,
        )  # fmt: skip
        return harvest

    def _start(self) -> str:
        return self._site.page(self._spec.url)

    def _why_not(self, page: str) -> str:
        """Why a page may not be read; empty when it may."""
        path = path_of(page)
        for excluded in self._spec.exclude_paths:
            if path.startswith(excluded):
                return f"excludePaths names {excluded}"
        return "" if self._rules().allows(path) else f"{self._site.root}robots.txt forbids {path} to {AGENT}"

    def _rules(self) -> Robots:
        """Rules of the site; read once. A site without robots.txt allows everything."""
        if self._robots is None:
            url = f"{self._site.root}robots.txt"
            answer = self._client.get(self._site, url, max_bytes=MAX_ROBOTS_BYTES)
            if answer.problem and (answer.may_pass or answer.status == 200):
                raise SourceUnavailable(
                    f"{self._place}.url: {url} {answer.problem}; without it nothing may be read: check the address, "
                    "and that the site is up"
                )
            self._robots = parse_robots(answer.body.decode("utf-8", "replace"), AGENT)
            delay = self._robots.crawl_delay_seconds
            if delay > MAX_CRAWL_DELAY_SECONDS:
                raise SourceRejected(
                    f"{self._place}.url: {url} asks for {delay:.0f} s between requests, and more than "
                    f"{MAX_CRAWL_DELAY_SECONDS:.0f} s takes days; ask the site's owner for a shorter Crawl-delay"
                )
            self._client.interval_seconds = max(self._client.interval_seconds, delay)
        return self._robots

    def _in_sitemaps(self) -> tuple[list[str], bool]:
        """Pages that the sitemaps name, in their order, and whether these are all; a sitemap that has gone has none."""
        named = [page for url in self._rules().sitemaps if (page := self._site.page(url))]
        waiting = deque(named or [self._site.page("/sitemap.xml")])
        seen: dict[str, None] = {}
        pages: dict[str, None] = {}
        all_named = True
        while waiting and len(seen) < MAX_SITEMAPS and len(pages) < 10 * self._spec.max_pages:
            url = waiting.popleft()
            if url in seen:
                continue
            seen[url] = None
            answer = self._client.get(self._site, url, max_bytes=MAX_SITEMAP_BYTES)
            if answer.problem:
                logger.info("a sitemap cannot be read: url=%s fact=%r", url, answer.problem)
                all_named = all_named and not answer.may_pass and answer.status != 200
                continue
            sitemap = parse_sitemap(answer.body)
            pages |= dict.fromkeys(page for one in sitemap.pages if (page := self._site.page(one)))
            waiting += [page for one in sitemap.sitemaps if (page := self._site.page(one))]
        return list(pages), all_named and not waiting
