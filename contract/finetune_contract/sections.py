"""Cutting a Markdown document into sections and finding the ones that fit a question.

Shared by the dataset stage and the chat, so that a model is asked in the form in which it was taught. Pure text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_STOP_WORDS = frozenset(
    "a about an and any are as at be been but by can could did do does for from get has have he her his how i if in"
    " into is it its me my of on one or our please she should so some tell than that the their them there they this"
    " to us was we were what when where which who whom whose why will with would you your".split()
)


@dataclass(frozen=True)
class Section:
    """A heading and the text up to the next one. `heading` is empty for the text before the first."""

    heading: str
    text: str


@dataclass(frozen=True)
class Passage:
    """A section of a known document: what goes into a prompt, and where a link to it leads."""

    title: str
    heading: str
    text: str
    url: str


def split_sections(markdown: str) -> list[Section]:
    """Sections in order; headings inside code fences do not count; sections without text are left out."""
    sections: list[Section] = []
    heading, lines, fenced = "", list[str](), False

    def close() -> None:
        text = "\n".join(lines).strip()
        if text:
            sections.append(Section(heading, text))

    for line in markdown.splitlines():
        if _FENCE.match(line):
            fenced = not fenced
        match = None if fenced else _HEADING.match(line)
        if match is None:
            lines.append(line)
            continue
        close()
        heading, lines = match.group(2), []
    close()
    return sections


def stem(word: str) -> str:
    """A crude English stem: lower case, without plural, -ing and -ed. Good enough to match a question to a text."""
    word = word.lower().replace("’", "'").removesuffix("'s")
    for suffix in ("ings", "ing", "edly", "ed", "ies", "es", "s"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)] + ("y" if suffix == "ies" else "")
    return word


def content_words(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order, repeats kept."""
    return [stem(word) for word in _WORD.findall(text) if word.lower() not in _STOP_WORDS]


def shorten(text: str, max_words: int) -> str:
    """The first `max_words` words, at a line's end where one is near; whole when it is short enough."""
    words_left, kept = max_words, list[str]()
    for line in text.splitlines():
        words = line.split()
        if len(words) > words_left:
            if words_left > 0 and (not kept or words_left >= max_words // 4):
                kept.append(" ".join(words[:words_left]))
            break
        kept.append(line)
        words_left -= len(words)
    return "\n".join(kept).strip()


def rank_passages(question: str, passages: Sequence[Passage], limit: int) -> list[tuple[Passage, float]]:
    """The best passages first with a score from 0 to 1: the share of the question's information that they hold.

    Each content word of the question weighs its inverse document frequency among the passages; a word in title or
    heading counts fully, a word in the text nearly so. 0 means that no content word was found.
    """
    wanted = sorted(set(content_words(question)))
    if not wanted or not passages:
        return []
    bodies = [Counter(content_words(p.text)) for p in passages]
    heads = [set(content_words(f"{p.title} {p.heading}")) for p in passages]
    weights = {
        word: math.log(1 + len(passages) / (1 + sum(word in b or word in h for b, h in zip(bodies, heads, strict=True))))
        for word in wanted
    }
    total = sum(weights.values()) or 1.0
    scored: list[tuple[float, int]] = []
    for index, (body, head) in enumerate(zip(bodies, heads, strict=True)):
        score = sum(
            weights[word] * (1.0 if word in head else 0.9 if word in body else 0.0) for word in wanted
        )
        if score > 0:
            scored.append((score / total, index))
    scored.sort(key=lambda item: (-item[0], item[1]))
    return [(passages[index], score) for score, index in scored[:limit]]
