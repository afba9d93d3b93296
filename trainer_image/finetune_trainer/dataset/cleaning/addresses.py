"""Links, pictures and embeds: absolute addresses without tracking, and what plays becomes a link.

Must not know Markdown.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit, urlunsplit

from bs4 import BeautifulSoup
from bs4.element import NavigableString, Tag

from finetune_trainer.dataset.cleaning.machinery import image_source
from finetune_trainer.dataset.cleaning.tree import first_below

_EMBEDS = frozenset({"iframe", "video", "audio", "embed", "object"})
_LINK_SCHEMES = frozenset({"http", "https", "mailto", "tel", "ftp", "sms"})
_BLANK = re.compile(r"\s")
_HAS_WORD = re.compile(r"\w")
_EMBED_SECRET = re.compile(r"^\?secret=\w+$")


def settle_addresses(soup: BeautifulSoup, base_url: str) -> None:
    """In place: every link, picture and embed has an absolute address, or is text, or is gone."""
    for tag in [node for node in soup.descendants if isinstance(node, Tag)]:
        if tag.name == "img":
            _settle_image(tag, base_url)
        elif tag.name == "a":
            _settle_link(tag, base_url)
        elif tag.name in _EMBEDS:
            _settle_embed(soup, tag, base_url)


def absolute_address(href: str, base_url: str) -> str:
    """An absolute address without tracking; empty when it leads nowhere else, such as `#top` or `javascript:`."""
    href = href.strip()
    if not href or href.startswith("#"):
        return ""
    try:
        parts = urlsplit(urljoin(base_url, href))
        base = urlsplit(base_url)
    except ValueError:
        return ""
    if parts.scheme.lower() not in _LINK_SCHEMES or (parts.fragment and parts[:4] == base[:4]):
        return ""
    if "rest_route=" in parts.query or "/wp-json/" in parts.path:
        return ""
    query = parts.query
    if "utm_" in query:
        query = "&".join(part for part in query.split("&") if not part.startswith("utm_"))
    fragment = "" if _EMBED_SECRET.match(parts.fragment) else parts.fragment
    address = urlunsplit((parts.scheme, parts.netloc, parts.path, query, fragment))
    address = _BLANK.sub("%20", address).replace("(", "%28").replace(")", "%29")
    return address.replace("|", "%7C").replace("<", "%3C").replace(">", "%3E")


def _settle_image(image: Tag, base_url: str) -> None:
    alt = " ".join(str(image.get("alt") or "").split())
    names = image.get("class") or ()
    if alt and ("emoji" in names or "wp-smiley" in names):
        image.replace_with(NavigableString(alt))
        return
    tiny = str(image.get("width")) in {"0", "1"} or str(image.get("height")) in {"0", "1"}
    address = "" if tiny else absolute_address(image_source(image), base_url)
    if not address:
        image.decompose()
        return
    image.attrs = {"src": address, "alt": alt.replace("[", "(").replace("]", ")")}


def _settle_link(link: Tag, base_url: str) -> None:
    href = str(link.get("href") or "")
    address = absolute_address(href, base_url)
    if address:
        name = " ".join(str(link.get("aria-label") or link.get("title") or "").split())
        link.attrs = {"href": address}
        if name and first_below(link, {"img"}) is None and not link.get_text().strip():
            link.append(NavigableString(name))
        return
    if href and not _HAS_WORD.search(link.get_text()) and first_below(link, {"img"}) is None:
        link.decompose()  # the mark that jumps back from a footnote or names a heading
        return
    if link.parent is not None and link.parent.name == "sup" and link.get_text().strip().isdigit():
        link.insert_before(NavigableString("[^"))
        link.insert_after(NavigableString("]"))
    link.unwrap()


def _settle_embed(soup: BeautifulSoup, embed: Tag, base_url: str) -> None:
    inner = first_below(embed, {"source", "embed"})
    sources = (
        embed.get("src"), embed.get("data-src"), embed.get("data-lazy-src"), embed.get("data-litespeed-src"),
        embed.get("data"), inner.get("src") if inner is not None else None,
    )  # fmt: skip
    address = next(
        (found for source in sources if (found := absolute_address(str(source or ""), base_url))), ""
    )
    names = embed.get("class") or ()
    if (
        not address
        or "wp-block-file__embed" in names
        or ("wp-embedded-content" in names and _has_quote(embed))
    ):
        embed.decompose()
        return
    link = soup.new_tag("a", href=address)
    link.string = " ".join(str(embed.get("title") or "").split()) or urlsplit(address).netloc or address
    paragraph = soup.new_tag("p")
    paragraph.append(link)
    embed.replace_with(paragraph)
    embed.decompose()


def _has_quote(frame: Tag) -> bool:
    """Whether WordPress's embed of a post is there as a quote with its link, beside the frame."""
    quote = frame.find_previous_sibling("blockquote")
    return quote is not None and first_below(quote, {"a"}) is not None
