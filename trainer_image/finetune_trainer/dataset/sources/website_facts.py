"""What a page says about itself: title, excerpt, date, author, categories and tags.

Taken from headings, meta tags, JSON-LD and microformats, the surest first. Pure; nothing is guessed from the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from bs4 import BeautifulSoup
from bs4.element import NavigableString, Tag

from finetune_trainer.dataset.sources.dates import UNDATED, as_utc

_HOME = {"home", "start", "startseite", "accueil", "inicio"}
_ARTICLE_TYPES = re.compile(r"(?:Article|Posting|WebPage|HowTo|Recipe|FAQPage)$")
ANCHOR_MARKS = frozenset({"", "#", "¶", "§", "🔗", "link"})
"""Texts of links that only lead to their own heading."""
_AUTHORS = (
    "[itemprop=author] [itemprop=name], [itemprop=author], [rel~=author], .h-card .p-name, .p-author, .byline .author,"
    " .author.vcard, .wp-block-post-author-name, .wp-block-post-author__name"
)
_SECTIONS = "a[rel~=category], .taxonomy-category a[rel~=tag], a[rel~=tag][href*='/category/']"
_DATE_NAMES = (
    "article:published_time", "og:published_time", "datePublished", "date", "pubdate", "publish-date", "publish_date",
    "dc.date", "dc.date.issued", "dcterms.date", "dcterms.created", "citation_publication_date",
)  # fmt: skip


@dataclass(frozen=True)
class PageFacts:
    """Texts are plain; the date is RFC 3339 in UTC, the epoch when the page has none."""

    title: str
    excerpt: str
    date: str
    author: str
    categories: tuple[str, ...]
    tags: tuple[str, ...]


def page_facts(soup: BeautifulSoup, headers: Mapping[str, str]) -> PageFacts:
    """Facts of a whole page, with all that stands around its text; `headers` are those of the answer."""
    data = list(_linked_data(soup))
    articles = [one for one in data if _ARTICLE_TYPES.search(_first(one.get("@type")))]
    return PageFacts(
        title=_title(soup),
        excerpt=_meta(soup, "description", "og:description", "twitter:description"),
        date=_date(soup, articles, headers),
        author=_author(soup, articles),
        categories=_categories(soup, data, articles),
        tags=_tags(soup, articles),
    )


def _title(soup: BeautifulSoup) -> str:
    """The heading of the text; a heading elsewhere is often the site's name, so the meta tag comes before it."""
    inside, anywhere = soup.select("main h1, article h1, [role=main] h1"), soup.find_all("h1")
    title = soup.find("title")
    return next(
        (
            text
            for text in (
                *(heading_text(heading) for heading in inside[:1]),
                _meta(soup, "og:title"),
                *(heading_text(heading) for heading in anywhere if len(anywhere) == 1),
                _text(title) if isinstance(title, Tag) else "",
            )
            if text
        ),
        "",
    )


def heading_text(heading: Tag) -> str:
    """Text of a heading, without its buttons and the mark of its anchor."""
    aside = {
        id(one)
        for one in heading.find_all(["a", "button"])
        if one.name == "button"
        or (str(one.get("href", "")).startswith("#") and one.get_text(strip=True) in ANCHOR_MARKS)
    }
    texts = (one for one in heading.descendants if type(one) is NavigableString)  # no comments
    text = " ".join(one for one in texts if not any(id(parent) in aside for parent in one.parents))
    return " ".join(text.split())


def _date(soup: BeautifulSoup, articles: list[dict[str, Any]], headers: Mapping[str, str]) -> str:
    candidates = [_meta(soup, name) for name in _DATE_NAMES]
    candidates[1:1] = [_first(one.get("datePublished")) for one in articles]
    candidates += [
        str(tag.get("datetime") or tag.get("content") or "")
        for tag in soup.select("[itemprop=datePublished]")
    ]
    times = soup.select("article time[datetime], main time[datetime]") or soup.select("time[datetime]")
    candidates += [str(tag.get("datetime")) for tag in times[:1]]
    for candidate in candidates:
        if date := as_utc(candidate):
            return date
    return _last_modified(headers)


def _last_modified(headers: Mapping[str, str]) -> str:
    """When the file was changed; servers that make pages on the fly say `now`, which is no fact about the page."""
    try:
        modified = parsedate_to_datetime(headers.get("Last-Modified", ""))
        answered = parsedate_to_datetime(headers["Date"]) if "Date" in headers else None
        if answered is not None and abs(answered - modified) < timedelta(minutes=1):
            return UNDATED
        return modified.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, TypeError, OverflowError):
        return UNDATED


def _author(soup: BeautifulSoup, articles: list[dict[str, Any]]) -> str:
    named = _meta(soup, "author", "article:author", "dc.creator", "parsely-author")
    if named and not named.startswith(("http://", "https://", "/")):
        return named
    for article in articles:
        if names := [name for name in map(_name, _many(article.get("author"))) if name]:
            return ", ".join(dict.fromkeys(names))
    tag = soup.select_one(_AUTHORS)
    return _text(tag) if tag is not None else ""


def _categories(
    soup: BeautifulSoup, data: list[dict[str, Any]], articles: list[dict[str, Any]]
) -> tuple[str, ...]:
    """Root first: the breadcrumbs without home and the page itself, else its section."""
    for one in data:
        if _first(one.get("@type")) == "BreadcrumbList":
            items = [item for item in _many(one.get("itemListElement")) if isinstance(item, dict)]
            items.sort(key=lambda item: _number(item.get("position")))
            names = [_name(item) or _name(item.get("item")) for item in items]
            if crumbs := _crumbs(names[:-1]):
                return crumbs
    trail = soup.select_one(
        "[aria-label*=breadcrumb i], .breadcrumb, .breadcrumbs, [itemtype$=BreadcrumbList]"
    )
    if trail is not None and (crumbs := _crumbs(_text(link) for link in trail.find_all("a"))):
        return crumbs
    sections = [
        *_metas(soup, "article:section"),
        *(str(s) for one in articles for s in _many(one.get("articleSection"))),
    ]
    sections += [_text(link) for link in soup.select(_SECTIONS)]
    return _unique(sections)


def _crumbs(names: Iterable[str]) -> tuple[str, ...]:
    return _unique(name for name in names if name.lower() not in _HOME)


def _tags(soup: BeautifulSoup, articles: list[dict[str, Any]]) -> tuple[str, ...]:
    names = _metas(soup, "article:tag")
    for article in articles:
        for keywords in _many(article.get("keywords")):
            names += str(keywords).split(",") if isinstance(keywords, str) else []
    sections = {id(link) for link in soup.select(_SECTIONS)}
    names += [_text(link) for link in soup.select("a[rel~=tag]") if id(link) not in sections]
    return tuple(sorted(_unique(names)))


def _linked_data(soup: BeautifulSoup) -> Iterator[dict[str, Any]]:
    """Objects of the page's JSON-LD, also those inside a graph."""
    for script in soup.find_all("script", type="application/ld+json"):
        try:
            found = json.loads(script.get_text())
        except (ValueError, RecursionError):
            continue
        for one in _many(found):
            if isinstance(one, dict):
                yield one
                yield from (inner for inner in _many(one.get("@graph")) if isinstance(inner, dict))


def _metas(soup: BeautifulSoup, name: str) -> list[str]:
    named = re.compile(f"^{re.escape(name)}$", re.IGNORECASE)
    tags = [
        tag
        for attribute in ("property", "name", "itemprop")
        for tag in soup.find_all("meta", {attribute: named})
    ]
    return [text for tag in tags if (text := " ".join(str(tag.get("content") or "").split()))]


def _meta(soup: BeautifulSoup, *names: str) -> str:
    return next((texts[0] for name in names if (texts := _metas(soup, name))), "")


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _first(value: Any) -> str:
    return next((one for one in _many(value) if isinstance(one, str)), "")


def _name(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else value
    return " ".join(name.split()) if isinstance(name, str) else ""


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | str) and str(value).isdigit() else 0


def _text(tag: Tag) -> str:
    return " ".join(tag.get_text(" ").split())


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for raw in names if (name := " ".join(raw.split()))))
