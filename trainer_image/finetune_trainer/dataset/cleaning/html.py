"""HTML of a post to Markdown: what a reader learns stays, what the site's machinery adds goes.

Kept: headings, lists, tables, code, links with absolute addresses, images, captions, embeds as links. Dropped:
scripts, forms, widgets, and blocks that copy other posts into this one, because they would leak answers between posts.
Must not know where the HTML came from.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from bs4 import BeautifulSoup
from bs4.element import Comment, NavigableString, Tag
from markdownify import ATX, MarkdownConverter

_DROPPED_TAGS = (
    "script", "style", "form", "input", "button", "select", "textarea", "svg", "noscript", "nav", "template", "label",
    "object", "canvas", "head",
)  # fmt: skip
_DROPPED_CLASS = re.compile(
    r"^(?:wp-block-(?:latest-posts|latest-comments|comments?|comments-.+|post-comments.*|archives|categories|tag-cloud"
    r"|calendar|rss|query.*|navigation.*|search|loginout|page-list|social-links?|site-.+|post-(?!content$).+)"
    r"|comment-respond|sharedaddy|jp-relatedposts|addtoany.*|screen-reader-text)$"
)
_SHORTCODE = re.compile(
    r"\[/?(?:contact-form-7|contact-form|gallery|caption|embed|audio|video|playlist|wpforms|gravityform|ninja_form"
    r"|formidable|mc4wp_form|elementor-template|vc_\w+|et_pb_\w+)(?:\s[^\[\]]*)?/?\]"
    r"|\[/?[A-Za-z][\w-]*(?:\s+[\w-]+=(?:\"[^\"\[\]]*\"|'[^'\[\]]*'|[”“″][^”“″\[\]]*[”“″]))+\s*/?\]"
)
"""Names that plugins use, and any name with attributes; other words in brackets are somebody's words."""
_EMBEDS = ("iframe", "video", "audio", "embed")
_LINK_SCHEMES = frozenset({"http", "https", "mailto", "tel"})
_LANGUAGE = re.compile(r"^(?:language|lang)-([\w+#.-]+)$")
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad]")
_MACHINE_MADE_END = re.compile(r"\s*(?:\[(?:…|\.\.\.)\]|…)$")
_MAX_DEPTH = 150
"""Deeper nesting is no writing; it is flattened to text, because converters recurse."""


def clean_html(html: str, base_url: str = "") -> str:
    """Markdown of a fragment of HTML; relative links are resolved against `base_url`. Never raises."""
    soup = _parse(html)
    drop_machinery(soup)
    _make_addresses_absolute(soup, base_url)
    _embeds_to_links(soup, base_url)
    if _depth(soup) > _MAX_DEPTH:
        return _tidy(soup.get_text("\n"))
    return _tidy(_PostConverter().convert_soup(soup))


def plain_text(html: str) -> str:
    """Text of a title, name or excerpt: without tags, entities decoded, on one line."""
    soup = _parse(html)
    drop_machinery(soup)
    return " ".join(_normalise(soup.get_text()).split())


def excerpt_text(html: str) -> str:
    """Text of an excerpt, without the dots that WordPress puts where it cut."""
    return _MACHINE_MADE_END.sub("", plain_text(html))


def drop_machinery(soup: BeautifulSoup) -> None:
    """Remove in place what no reader learns from. Doing it twice changes nothing."""
    for comment in soup.find_all(string=lambda text: isinstance(text, Comment)):
        comment.extract()
    for tag in soup.find_all(_DROPPED_TAGS):
        tag.decompose()
    for tag in soup.find_all(class_=_DROPPED_CLASS):
        if not tag.decomposed:
            tag.decompose()
    for image in soup.find_all("img"):
        _settle_image(image)
    for text in soup.find_all(string=_SHORTCODE):
        if text.find_parent("pre") is None and text.find_parent("code") is None:
            text.replace_with(NavigableString(_SHORTCODE.sub("", text)))


class _PostConverter(MarkdownConverter):
    """markdownify without escapes, with code verbatim and cells that cannot break their table."""

    class Options:
        heading_style = ATX
        bullets = "-"
        autolinks = False
        escape_asterisks = False
        escape_underscores = False
        escape_misc = False
        keep_inline_images_in = [  # noqa: RUF012 - the form that markdownify asks for
            "a", "td", "th", "li", "p", "figcaption", "summary", "h1", "h2", "h3", "h4", "h5", "h6",
        ]  # fmt: skip

    def convert_pre(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        for line_break in el.find_all("br"):
            line_break.replace_with("\n")
        code = el.get_text().strip("\n")
        if not code.strip():
            return ""
        longest = max((len(run) for run in re.findall(r"`{3,}", code)), default=2)
        fence = "`" * (longest + 1)
        return f"\n\n{fence}{_language(el)}\n{code}\n{fence}\n\n"

    def convert_td(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        span = str(el.get("colspan") or "1")
        columns = min(100, int(span)) if span.isdigit() and span != "0" else 1
        return f" {_escape_bars(' '.join(text.split()))} |" + " |" * (columns - 1)

    convert_th = convert_td

    def convert_summary(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        return f"\n\n{text.strip()}\n\n"


def _parse(html: str) -> BeautifulSoup:
    """lxml is named, so that every machine parses alike; lone surrogates (JSON allows them) are replaced."""
    text = html.encode("utf-8", "replace").decode("utf-8").replace("\x00", "")
    return BeautifulSoup(f"<html><body>{text}</body></html>", "lxml")


def _settle_image(image: Tag) -> None:
    source = str(image.get("src") or "")
    if not source or source.startswith("data:"):
        source = str(image.get("data-src") or image.get("data-lazy-src") or image.get("data-original") or "")
    tiny = str(image.get("width")) in {"0", "1"} or str(image.get("height")) in {"0", "1"}
    if not source or source.startswith("data:") or tiny:
        image.decompose()
        return
    image.attrs = {"src": source, "alt": " ".join(str(image.get("alt") or "").split())}


def _make_addresses_absolute(soup: BeautifulSoup, base_url: str) -> None:
    for link in soup.find_all("a"):
        address = _address(str(link.get("href") or ""), base_url)
        if address:
            link.attrs = {"href": address}
        else:
            link.unwrap()
    for image in soup.find_all("img"):
        address = _address(str(image.get("src") or ""), base_url)
        if address:
            image["src"] = address
        else:
            image.decompose()


def _embeds_to_links(soup: BeautifulSoup, base_url: str) -> None:
    for embed in soup.find_all(_EMBEDS):
        if embed.decomposed:
            continue
        inner = embed.find("source")
        source = str(embed.get("src") or embed.get("data-src") or (inner.get("src") if inner else "") or "")
        address = _address(source, base_url)
        if not address:
            embed.decompose()
            continue
        link = soup.new_tag("a", href=address)
        link.string = " ".join(str(embed.get("title") or "").split()) or urlsplit(address).netloc or address
        paragraph = soup.new_tag("p")
        paragraph.append(link)
        embed.replace_with(paragraph)


def _address(href: str, base_url: str) -> str:
    """An absolute address without tracking; empty when it leads nowhere, such as `#top` or `javascript:`."""
    href = href.strip()
    if not href or href.startswith("#"):
        return ""
    try:
        parts = urlsplit(urljoin(base_url, href))
    except ValueError:
        return ""
    if parts.scheme.lower() not in _LINK_SCHEMES:
        return ""
    query = parts.query
    if "utm_" in query:
        query = urlencode([pair for pair in parse_qsl(query, True) if not pair[0].startswith("utm_")])
    address = urlunsplit((parts.scheme, parts.netloc, parts.path, query, parts.fragment))
    return re.sub(r"\s", "%20", address).replace("(", "%28").replace(")", "%29")


def _language(pre: Tag) -> str:
    for tag in (pre, *pre.find_all("code")):
        for name in tag.get_attribute_list("class"):
            if match := _LANGUAGE.match(str(name)):
                return match.group(1)
    return ""


def _escape_bars(cell: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", cell)


def _depth(soup: BeautifulSoup) -> int:
    deepest, waiting = 0, [(child, 1) for child in soup.children]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        if isinstance(node, Tag):
            waiting += [(child, depth + 1) for child in node.children]
    return deepest


def _normalise(text: str) -> str:
    return _INVISIBLE.sub("", unicodedata.normalize("NFC", text.replace("\u00a0", " ")))


def _tidy(markdown: str) -> str:
    """One blank line between blocks, none at the ends, no blanks at line ends; code keeps its inner blank lines."""
    lines: list[str] = []
    fence = ""
    for line in markdown.split("\n"):
        opening = re.match(r"\s*(`{3,})", line)
        if fence:
            fence = "" if line.strip() == fence else fence
            lines.append(line.rstrip())
            continue
        if opening:
            fence = opening.group(1)
        line = _normalise(line).rstrip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()
