"""Cutting a Markdown document into sections and finding the ones that fit a question.

Shared by the dataset stage and the chat, so that a model is asked in the form in which it was taught. Pure text.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE_OPENS = re.compile(r"^\s*(?:>[ \t]*|(?:[-*+]|\d{1,9}[.)])[ \t]+)*(`{3,}(?=[^`]*$)|~{3,})")
_FENCE_CLOSES = re.compile(r"^[\s>]*(`{3,}|~{3,})\s*$")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_IMAGE = re.compile(r"!\[[^\]]*\]\([^()\s]*(?:\([^()]*\)[^()\s]*)*\)\s?")
_EMPHASIS = re.compile(r"(\*{1,3})(?! )([^*]+)(?<! )\1")
_BLANK_LINES = re.compile(r"\n{3,}")
_LINK = re.compile(r"\[([^\[\]]+)\]\([^()\s]*(?:\([^()]*\)[^()\s]*)*\)")
_ADDRESS = re.compile(r"(?<=\])\([^()\s]*(?:\([^()]*\)[^()\s]*)*\)")
HEADING_SHARE = 1.0
"""Of a word's weight, where title or heading has it."""
TEXT_SHARE = 0.9
_STOP_WORDS = frozenset(
    "a about an and any are as at be been but by can could did do does for from get has have he her his how i if in"  # noqa: SIM905
    " into is it its me my of on one or our please she should so some tell than that the their them there they this"
    " to us was we were what when where which who whom whose why will with would you your".split()
)

_SYNONYMS = {
    word: leader
    for leader, words in {
        "cost": "pric pay paid fee charg expensiv tariff",
        "telephon": "phon ring call",
        "reserv": "book order",
        "start": "begin began begun beginn",
        "shut": "clos shutt",
        "buy": "bought purchas",
        "bread": "loaf loav",
    }.items()
    for word in words.split()
}
"""By stem: readers ask for a price where a page names the cost."""

SHORT_FOLLOW_UP_WORDS = 2
"""A question with so few words that carry meaning may lean on the one before."""
_REFERENCES = frozenset(
    {"it", "its", "that", "these", "those", "they", "them", "their", "there", "he", "him", "she", "her"}
)


@dataclass(frozen=True)
class Section:
    """A heading and the text up to the next one. `heading` is empty for the text before the first."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A section of a known document: what goes into a prompt, and where a link to it leads."""

    title: str
    heading: str
    text: str
    url: str


def split_sections(markdown: str) -> list[Section]:
    """Sections in order; headings inside code fences do not count; sections without text are left out."""
    sections: list[Section] = []
    heading, lines = "", list[str]()

    def close() -> None:
        text = "\n".join(lines).strip()
        if text:
            sections.append(Section(heading, text))

    for line, is_code in lines_and_code(markdown.splitlines()):
        match = None if is_code else _HEADING.match(line)
        if match is None:
            lines.append(line)
            continue
        close()
        heading, lines = _plain(match.group(2)), []
    close()
    return sections


def lines_and_code(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it belongs to a fenced block.

    A fence closes with at least as many of its own sign, so that a longer one may hold a shorter one; a block that
    nobody closed lasts to the end.
    """
    fence = ""
    for line in lines:
        if fence:
            yield line, True
            closes = _FENCE_CLOSES.match(line)
            fence = "" if closes and closes.group(1).startswith(fence) else fence
        else:
            opens = _FENCE_OPENS.match(line)
            fence = opens.group(1) if opens else ""
            yield line, bool(fence)


def _plain(heading: str) -> str:
    """A heading without links and emphasis: it is shown to the model and asked about."""
    return _EMPHASIS.sub(r"\2", without_links(heading)).strip()


def without_links(markdown: str) -> str:
    """Links become their text and images vanish: a prompt has no room for addresses, and a model must not copy them."""
    return _BLANK_LINES.sub("\n\n", _LINK.sub(r"\1", _IMAGE.sub("", markdown)))


def without_addresses(markdown: str) -> str:
    """Links and images without where they lead: what is found for a question does not hang on the site's host."""
    return _ADDRESS.sub("", markdown)


@lru_cache(maxsize=16_384)
def stem(word: str) -> str:
    """A crude English stem: lower case, without plural, -ing, -ed and final e; enough to match question and text."""
    word = word.lower().replace("’", "'").removesuffix("'s")
    for suffix in ("ings", "ing", "edly", "ed", "ies", "es", "s"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)] + ("y" if suffix == "ies" else "")
    return word.removesuffix("e") if len(word) > 3 else word


def content_words(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order, repeats kept; a few words for the same thing become one."""
    stems = (stem(word) for word in _WORD.findall(text) if word.lower() not in _STOP_WORDS)
    return [_SYNONYMS.get(word, word) for word in stems]


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


def passage_words(passage: Passage) -> tuple[set[str], set[str]]:
    """Content words of title and heading, and those of the text."""
    return (
        set(content_words(f"{passage.title} {passage.heading}")),
        set(content_words(without_addresses(passage.text))),
    )


class PassageIndex:
    """Passages with their words looked up once, for callers that ask many questions."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = tuple(passages)
        self._places: dict[str, dict[int, float]] = {}
        for index, passage in enumerate(self.passages):
            heading, text = passage_words(passage)
            for word in text:
                self._places.setdefault(word, {})[index] = TEXT_SHARE
            for word in heading:
                self._places.setdefault(word, {})[index] = HEADING_SHARE

    def rank(self, question: str, limit: int) -> list[tuple[Passage, float]]:
        """The best passages first with a score from 0 to 1: the share of the question's information they hold.

        Each content word of the question weighs its inverse document frequency among the passages; a word in title
        or heading counts fully, a word in the text nearly so. Passages without any content word are left out.
        """
        scores, total = self._scores(question)
        return [(self.passages[index], scores[index] / total) for index in _best(scores, limit)]

    def rank_follow_up(self, together: str, question: str, limit: int) -> list[tuple[Passage, float, float]]:
        """The best passages for a question that leans on the one before, each with what it is sorted by and its score.

        Both questions find the passage, and the last one counts twice. The score is the lower of the two: an old
        question cannot carry a new one.

        Args:
            together: the question before and this one.
            question: this one alone; it has words that carry meaning.
            limit: passages at most.
        """
        scores, total = self._scores(together)
        own, own_total = self._scores(question)
        sums = {index: score / total + own.get(index, 0.0) / own_total for index, score in scores.items()}
        places = sorted(scores, key=lambda index: (-sums[index], -scores[index], index))[:limit]
        return [
            (
                self.passages[index],
                sums[index],
                min(scores[index] / total, own.get(index, 0.0) / own_total),
            )
            for index in places
        ]

    def _scores(self, question: str) -> tuple[dict[int, float], float]:
        """Information that passages share with a question, by place, and all that the question has."""
        count = len(self.passages)
        scores: dict[int, float] = {}
        total = 0.0
        for word in sorted(set(content_words(question))):
            places = self._places.get(word, {})
            weight = math.log(1 + count / (1 + len(places)))
            total += weight  # not sum(): how exactly it adds up depends on the Python
            for index, share in places.items():
                scores[index] = scores.get(index, 0.0) + weight * share
        return scores, total or 1.0


def rank_passages(question: str, passages: Sequence[Passage], limit: int) -> list[tuple[Passage, float]]:
    """The best passages first with their scores; see PassageIndex.rank."""
    return PassageIndex(passages).rank(question, limit)


def leans_on_previous(question: str) -> bool:
    """Whether a question may be a follow-up: it says `it` or `there`, or hardly anything."""
    words = {word.strip(".,;:!?").lower() for word in question.split()}
    return bool(words & _REFERENCES) or len(set(content_words(question))) <= SHORT_FOLLOW_UP_WORDS


def _best(scores: Mapping[int, float], limit: int) -> list[int]:
    """The places with the highest scores, best first; the first of equals. Only what may be among them is sorted."""
    least = heapq.nlargest(limit, scores.values())[-1:]
    found = [index for index, score in scores.items() if least and score >= least[0]]
    return sorted(found, key=lambda index: (-scores[index], index))[:limit]
