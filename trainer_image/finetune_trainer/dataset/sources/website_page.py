"""One page of a web site: which part of it is its text, where it leads, and whether robots may keep it.

Pure: bytes in, values out. Must not know how pages are fetched.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

from bs4 import BeautifulSoup
from bs4.element import Tag
from bs4.exceptions import ParserRejectedMarkup

from finetune_trainer.dataset.cleaning.tree import above, all_below, is_gone
from finetune_trainer.dataset.sources.website_facts import ANCHOR_MARKS, PageFacts, heading_text, page_facts

_AROUND = (
    "nav, header, footer, aside, dialog, script, style, noscript, template, form, [hidden], [role=navigation],"
    " [role=banner], [role=contentinfo], [role=complementary], [role=search], [role=dialog]"
)
_AROUND_NAME = re.compile(
    r"^(?:breadcrumbs?|comments?|comments-area|comment-list|cookie-?(?:banner|notice|consent|bar)|newsletter|pagination|pager"
    r"|post-navigation|related|related-posts|share|sharing|share-buttons|sharedaddy|sidebar|site-footer|site-header"
    r"|skip-link|social|social-links|toc|table-of-contents|widget|widget-area|sphinxsidebar|page-nav)$",
    re.IGNORECASE,
)
"""Classes and ids that stand around a text, on sites that do not use the tags for it."""
_PARAGRAPHS = (
    "p",
    "pre",
    "li",
    "td",
    "th",
    "dd",
    "dt",
    "blockquote",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "figcaption",
)
_WRITTEN = (
    ".entry-content, .wp-block-post-content, .post-content, .article-body, .article-content, .e-content,"
    " .markdown-body, [itemprop=articleBody]"
)
"""What themes call the part that somebody wrote, beside bylines and lists of tags."""
_ARCHIVE = "body.archive, body.blog:not(.single), body.search-results"
"""WordPress says so of pages that list posts; also when there is one post only."""
_MOST = 0.8
"""A block holds the text of a page when it holds this share of it."""
_LISTED = 3
"""So many headings that lead elsewhere make a page a list of other pages."""


@dataclass(frozen=True)
class Page:
    """What is read off a page."""

    facts: PageFacts
    content_html: str
    """HTML of the part that is its text, without a heading that says the title again; empty when there is none."""
    without_text: str
    """Why there is no text, in words."""
    links: tuple[str, ...]
    """Absolute addresses in their order; none when the page asks robots not to follow them."""
    noindex: bool
    canonical: str
    """Absolute address that the page says is its own; empty when it says none."""


def parse_page(body: bytes, url: str, headers: Mapping[str, str], selector: str, agent: str) -> Page | None:
    """None when the bytes are no HTML."""
    charset = re.search(r"charset=[\"']?([\w.:-]+)", headers.get("Content-Type", ""))
    try:
        soup = BeautifulSoup(body, "lxml", from_encoding=charset.group(1) if charset else None)
    except ParserRejectedMarkup:
        return None
    base = soup.find("base", href=True)
    base_url = (_join(url, str(base["href"])) or url) if isinstance(base, Tag) else url
    orders = _orders(soup, headers, agent)
    links = () if orders & {"nofollow", "none"} else tuple(_links(soup, base_url))
    canonical = soup.find("link", rel="canonical", href=True)
    facts = page_facts(soup, headers)
    content, without_text = _content(soup, selector)
    return Page(
        facts,
        "" if content is None else _inner_html(content, facts.title, base_url),
        without_text,
        links,
        bool(orders & {"noindex", "none"}),
        _join(base_url, str(canonical["href"])) if isinstance(canonical, Tag) else "",
    )


def _inner_html(content: Tag, title: str, base_url: str) -> str:
    heading = content.find("h1")
    if isinstance(heading, Tag) and heading_text(heading) == title:
        heading.decompose()
    for link in content.find_all("a", href=re.compile("^#")):
        if link.get_text(strip=True).lower() in ANCHOR_MARKS and link.find("img") is None:
            link.decompose()
    for tag, attribute in (
        ("a", "href"),
        ("img", "src"),
        ("iframe", "src"),
        ("video", "src"),
        ("audio", "src"),
    ):
        for one in content.find_all(tag, attrs={attribute: re.compile("^[^#]")}):
            one[attribute] = _join(base_url, str(one[attribute]))
    return content.decode_contents()


def _orders(soup: BeautifulSoup, headers: Mapping[str, str], agent: str) -> set[str]:
    """Words of the robots meta tags and of X-Robots-Tag that are for everybody or for us."""
    words: set[str] = set()
    for meta in soup.find_all(
        "meta", attrs={"name": re.compile(f"^(robots|{re.escape(agent)})$", re.IGNORECASE)}
    ):
        words |= _words(str(meta.get("content") or ""))
    for order in headers.get("X-Robots-Tag", "").split(","):
        name, colon, rest = order.partition(":")
        if not colon:
            words |= _words(order)
        elif name.strip().lower() in {agent, "robots"}:
            words |= _words(rest)
    return words


def _words(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",")}


def _links(soup: BeautifulSoup, base_url: str) -> Iterable[str]:
    found: dict[str, None] = {}
    for link in soup.find_all(["a", "area"], href=True):
        if "nofollow" not in [str(word).lower() for word in link.get_attribute_list("rel")] and (
            address := _join(base_url, str(link["href"]))
        ):
            found[address] = None
    for link in soup.find_all("link", rel=["next", "prev"], href=True):
        if address := _join(base_url, str(link["href"])):
            found[address] = None
    return found


def _join(base_url: str, href: str) -> str:
    try:
        return urljoin(base_url, href.strip())
    except ValueError:
        return ""


def _content(soup: BeautifulSoup, selector: str) -> tuple[Tag | None, str]:
    if selector:
        chosen = soup.select(selector)
        known = {id(part) for part in chosen}
        outer = [part for part in chosen if not any(id(parent) in known for parent in part.parents)]
        if not outer:
            return None, f"has no part that fits contentSelector {selector}"
        content = soup.new_tag("div")
        for part in outer:
            content.append(part)
        return content, "" if content.get_text(strip=True) else "has no text in the part of contentSelector"
    _drop_what_stands_around(soup)
    body = soup.body
    if body is None:
        return None, "has no body"
    content = _main_part(body)
    if not content.get_text(strip=True):
        return None, "has no text; is it drawn by a script?"
    if soup.select_one(_ARCHIVE) is not None or _is_list(content):
        return None, "lists other pages"
    return content, ""


def _drop_what_stands_around(soup: BeautifulSoup) -> None:
    for part in soup.select(_AROUND):
        if not is_gone(part) and not _holds_main(part):
            part.decompose()
    for part in soup.find_all(True):
        if is_gone(part) or part.name in {"html", "body", "main", "article"}:
            continue
        names = [str(name) for name in (*part.get_attribute_list("class"), part.get("id")) if name]
        if any(_AROUND_NAME.match(name) for name in names) and not _holds_main(part):
            part.decompose()


def _holds_main(part: Tag) -> bool:
    """Some sites wrap everything in a form or a header."""
    return part.find(["main", "article"]) is not None or part.select_one("[role=main]") is not None


def _main_part(body: Tag) -> Tag:
    """<main>, [role=main] or <article>; else the smallest block that holds most of the text."""
    main = body.find("main") or body.select_one("[role=main]")
    part = main if isinstance(main, Tag) and main.get_text(strip=True) else body
    articles = [one for one in part.find_all("article") if one.find_parent("article") is None]
    if articles:
        longest = max(articles, key=_text_size)
        if _text_size(longest) >= _MOST * sum(_text_size(one) for one in articles) and (
            part is body or _text_size(longest) >= _MOST * _text_size(part)
        ):
            return _written(longest)
        if part is body:
            return body
    return _written(part if part is not body else _densest(body))


def _written(part: Tag) -> Tag:
    """The part inside that somebody wrote, when there is one and it holds most of the text."""
    found = part.select(_WRITTEN)
    best = max(found, key=_text_size, default=part)
    return best if _text_size(best) >= _MOST * _text_size(part) else part


def _densest(part: Tag) -> Tag:
    sizes: Counter[int] = Counter()
    for paragraph in _outermost_paragraphs(part):
        size = _words_size(paragraph)
        sizes.update({id(around): size for around in paragraph.parents})
    whole = sizes[id(part)]
    while whole > 0:
        inner = [child for child in part.children if isinstance(child, Tag) and child.name not in _PARAGRAPHS]
        best = max(inner, key=lambda child: sizes[id(child)], default=None)
        if best is None or sizes[id(best)] < _MOST * whole:
            break
        part = best
    return part


def _text_size(part: Tag) -> int:
    """Characters in paragraphs, without those of links."""
    return max(0, sum(map(_words_size, _outermost_paragraphs(part))))


def _outermost_paragraphs(part: Tag) -> Iterator[Tag]:
    for paragraph in all_below(part, _PARAGRAPHS):
        if part.name in _PARAGRAPHS or above(paragraph, _PARAGRAPHS) is None:
            yield paragraph


def _words_size(paragraph: Tag) -> int:
    linked = sum(len(link.get_text(" ", strip=True)) for link in all_below(paragraph, {"a"}))
    return len(paragraph.get_text(" ", strip=True)) - linked


def _is_list(content: Tag) -> bool:
    """Most headings are links to other pages, or most words are."""
    headings = [one for one in content.find_all(["h2", "h3", "h4"]) if one.get_text(strip=True)]
    linked = [one for one in headings if _leads_elsewhere(one)]
    if len(linked) >= _LISTED and len(linked) >= _MOST * len(headings):
        return True
    links = content.find_all("a", href=True)
    in_links = sum(len(link.get_text(" ", strip=True)) for link in links)
    return len(links) >= _LISTED and in_links > _MOST * len(content.get_text(" ", strip=True))


def _leads_elsewhere(heading: Tag) -> bool:
    link = heading.find("a", href=re.compile("^[^#]")) or heading.find_parent("a", href=re.compile("^[^#]"))
    return isinstance(link, Tag) and heading.get_text(strip=True) in link.get_text(strip=True)
