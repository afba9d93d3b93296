"""HTML of a post to Markdown: what a reader learns stays, what the site's machinery adds goes.

Kept: headings, lists, tables, code, links with absolute addresses, images, captions, embeds as links. Dropped:
scripts, forms, widgets, and blocks that copy other posts into this one, because they would leak answers between posts.
Must not know where the HTML came from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bs4 import BeautifulSoup
from bs4.element import Tag

from finetune_trainer.dataset.cleaning.addresses import settle_addresses
from finetune_trainer.dataset.cleaning.converter import normalise, to_markdown
from finetune_trainer.dataset.cleaning.machinery import drop_machinery
from finetune_trainer.dataset.cleaning.structure import mend_structure

FEW_WORDS = 20
MUCH_HTML = 200
"""Characters. Fewer words than FEW_WORDS out of more HTML than this are looked at twice."""
FEW_WORDS_LEFT = "hardly any text is left of much HTML"
TEXT_WITHOUT_LINKS = "the post had no text outside forms and the like: their text was taken, without links"
NESTED_TOO_DEEP = "nested too deep for Markdown: the text was taken, without links"

_MACHINE_MADE_END = re.compile(r"\s*(?:\[(?:…|\.\.\.)\]|…)$")
_LINK_TARGET = re.compile(r"\]\([^()\s]*\)")
_MAX_DEPTH = 150
"""Deeper nesting is no writing; it is flattened to text, because converters recurse."""


@dataclass(frozen=True)
class CleanedHtml:
    """Markdown, and why somebody should look at it; `doubt` is empty for nearly every post."""

    markdown: str
    doubt: str = ""


def clean_html(html: str, base_url: str = "") -> str:
    """Markdown of a fragment of HTML; relative links are resolved against `base_url`. Never raises."""
    return clean_content(html, base_url).markdown


def clean_content(html: str, base_url: str = "") -> CleanedHtml:
    """As clean_html, and whether the result is doubtful: nothing gets lost silently. Never raises."""
    soup = _parse(html)
    drop_machinery(soup)
    mend_structure(soup)
    settle_addresses(soup, base_url)
    if _is_deeper(soup, _MAX_DEPTH):
        return CleanedHtml(_lines_of_text(soup), NESTED_TOO_DEEP)
    markdown = to_markdown(soup)
    if len(html) <= MUCH_HTML or _count_words(markdown) >= FEW_WORDS:
        return CleanedHtml(markdown)
    soup = _parse(html)
    drop_machinery(soup, keep_wrappers=True)
    text = _lines_of_text(soup)
    if _count_words(text) >= max(FEW_WORDS, 2 * _count_words(markdown)):
        return CleanedHtml(text, TEXT_WITHOUT_LINKS)
    return CleanedHtml(markdown, FEW_WORDS_LEFT)


def plain_text(html: str) -> str:
    """Text of a title, name or excerpt: without tags, entities decoded, on one line."""
    if "<" not in html and "&" not in html and "[" not in html:
        return " ".join(normalise(_replace_surrogates(html)).replace("\x01", "").split())
    soup = _parse(html)
    drop_machinery(soup)
    return " ".join(normalise(soup.get_text()).replace("\x01", "").split())


def excerpt_text(html: str) -> str:
    """Text of an excerpt, without the dots that WordPress puts where it cut."""
    return _MACHINE_MADE_END.sub("", plain_text(html))


def is_machine_made(excerpt_html: str) -> bool:
    """Whether WordPress cut this excerpt out of the post itself."""
    return _MACHINE_MADE_END.search(plain_text(excerpt_html)) is not None


def _parse(html: str) -> BeautifulSoup:
    """lxml is named, so that every machine parses alike; lone surrogates (JSON allows them) are replaced."""
    text = _replace_surrogates(html).replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n")
    return BeautifulSoup(f"<html><body>{text}</body></html>", "lxml")


def _replace_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _lines_of_text(soup: BeautifulSoup) -> str:
    lines = (
        " ".join(line.split()) for line in normalise(soup.get_text("\n")).replace("\x01", "").split("\n")
    )
    return "\n".join(line for line in lines if line)


def _count_words(markdown: str) -> int:
    return len(re.findall(r"\w+", _LINK_TARGET.sub("]", markdown)))


def _is_deeper(soup: BeautifulSoup, limit: int) -> bool:
    waiting = [(child, 1) for child in soup.children]
    while waiting:
        node, depth = waiting.pop()
        if depth > limit:
            return True
        if isinstance(node, Tag):
            waiting += [(child, depth + 1) for child in node.contents]
    return False
