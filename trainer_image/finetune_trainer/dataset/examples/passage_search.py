"""The chat's search over all passages of a site at once: the same scores as `PassageIndex`, to the last bit.

A chat asks one question; a dataset asks some hundred for every document. What a word adds to all passages that hold it
is therefore added in one step.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from finetune_contract.sections import (
    HEADING_SHARE,
    TEXT_SHARE,
    Passage,
    content_words,
    passage_words,
)

_OFTEN = 8
"""A word in more than one of so many passages is kept as one row over all of them."""
_ROWS = 32
"""Of such words at once: 8 bytes for every passage."""

_NOTHING = array("i")
Places: TypeAlias = NDArray[np.int32]
Scores: TypeAlias = NDArray[np.float64]


class PassageSearch:
    """Passages by their words, which are looked up once, when the first question is asked."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        """A place is an index of `passages`, which may lie on disk: none is held."""
        self._passages = passages
        self._indexed: _Index | None = None

    def forget(self) -> None:
        """Let go of the index; the next question makes it again."""
        self._indexed = None

    @property
    def _index(self) -> _Index:
        if self._indexed is None:
            self._indexed = _Index(self._passages)
        return self._indexed

    def best(self, question: str, limit: int) -> list[int]:
        """The places of the best passages first; see `PassageIndex.rank`."""
        scores, _ = self._index.scores(question)
        return _first(limit, scores, scores)

    def best_after(self, together: str, question: str, limit: int) -> list[tuple[int, float]]:
        """The best places for a question after another one, with their scores; see `PassageIndex.rank_follow_up`."""
        scores, total = self._index.scores(together)
        own, own_total = self._index.scores(question)
        sums = np.where(scores > 0, scores / total + own / own_total, 0.0)
        return [
            (place, min(float(scores[place]) / total, float(own[place]) / own_total))
            for place in _first(limit, sums, scores)
        ]

    def has_all(self, place: int, words: Collection[str]) -> bool:
        """Whether the passage at a place has each of these content words, in title, heading or text."""
        return all(any(_holds(places, place) for _, places in self._index.shares(word)) for word in words)

    def any_has_all(self, words: Collection[str]) -> bool:
        """Whether some passage has each of these content words."""
        if not words:
            return bool(len(self._passages))
        rarest, *others = sorted((self._index.places(word) for word in words), key=len)
        for places in others:
            rarest = np.intersect1d(rarest, places, assume_unique=True)
        return bool(len(rarest))


class _Index:
    """The places of each word: one run of numbers for all words, since most words of a site are in one passage only."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._count = len(passages)
        self._numbers: dict[str, int] = {}
        found: list[array[int]] = []
        """For each word its places, doubled; odd where only the text has it."""
        for place, passage in enumerate(passages):
            heading, text = passage_words(passage)
            for words, half in ((heading, 0), (text - heading, 1)):
                for word in words:
                    number = self._numbers.setdefault(word, len(found))
                    if number == len(found):
                        found.append(array("i"))
                    found[number].append(2 * place + half)
        self._starts = np.zeros(2 * len(found) + 1, np.int64)
        """Where a word's places begin: those with it in title or heading, then those with it in the text."""
        self._places = np.empty(sum(map(len, found)), np.int32)
        for number in range(len(found)):
            doubled = np.frombuffer(found[number], np.int32)
            found[number] = _NOTHING
            start = self._starts[2 * number]
            in_heading, in_text = doubled[doubled % 2 == 0] // 2, doubled[doubled % 2 == 1] // 2
            middle = self._starts[2 * number + 1] = start + len(in_heading)
            end = self._starts[2 * number + 2] = middle + len(in_text)
            self._places[start:middle], self._places[middle:end] = in_heading, in_text
        self._row = lru_cache(_ROWS)(self._make_row)

    def places(self, word: str) -> Places:
        """Of the passages that have a word."""
        return np.concatenate([found for _, found in self.shares(word)] or [np.empty(0, np.int32)])

    def shares(self, word: str) -> list[tuple[float, Places]]:
        """The passages that have a word in title or heading, and those that have it in the text, each with its share of
        the word's weight; none is left out."""
        number = self._numbers.get(word)
        if number is None:
            return []
        start, middle, end = self._starts[2 * number : 2 * number + 3].tolist()
        halves = ((HEADING_SHARE, self._places[start:middle]), (TEXT_SHARE, self._places[middle:end]))
        return [(share, places) for share, places in halves if len(places)]

    def scores(self, question: str) -> tuple[Scores, float]:
        """Information that each passage shares with a question, and all that the question has."""
        count = self._count
        scores, total = np.zeros(count), 0.0
        for word in sorted(set(content_words(question))):
            shares = self.shares(word)
            holding = sum(len(places) for _, places in shares)
            weight = math.log(1 + count / (1 + holding))
            total += weight
            if holding * _OFTEN > count:
                scores += weight * self._row(word)
            else:
                for share, places in shares:
                    scores[places] += weight * share
        return scores, total or 1.0

    def _make_row(self, word: str) -> Scores:
        row = np.zeros(self._count)
        for share, places in self.shares(word):
            row[places] = share
        return row


def _holds(places: Places, place: int) -> bool:
    found = int(np.searchsorted(places, place))
    return found < len(places) and int(places[found]) == place


def _first(limit: int, by: Scores, then_by: Scores) -> list[int]:
    """The places with the highest values above zero, the first of equals; only what may be among them is sorted."""
    if len(by) > limit:
        least = np.partition(by, len(by) - limit)[len(by) - limit]
        places = np.flatnonzero((by >= least) & (by > 0))
    else:
        places = np.flatnonzero(by > 0)
    order = np.lexsort((places, -then_by[places], -by[places]))
    return [int(place) for place in places[order][:limit]]
