"""The chat's search over all passages of a site at once: the same scores as `PassageIndex`, to the last bit.

A chat asks one question; a dataset asks some hundred for every document. What a word adds to all passages that hold it
is therefore added in one step.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property, lru_cache
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

Places: TypeAlias = NDArray[np.int32]
Scores: TypeAlias = NDArray[np.float64]


class PassageSearch:
    """Passages with their words looked up once."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = tuple(passages)
        in_heading: dict[str, array[int]] = {}
        in_text: dict[str, array[int]] = {}
        for place, passage in enumerate(self.passages):
            heading, text = passage_words(passage)
            for word in heading:
                in_heading.setdefault(word, array("i")).append(place)
            for word in text - heading:
                in_text.setdefault(word, array("i")).append(place)
        self._in_heading = _as_places(in_heading)
        self._in_text = _as_places(in_text)
        self._row = lru_cache(_ROWS)(self._make_row)

    def best(self, question: str, limit: int) -> list[Passage]:
        """The best passages first; see `PassageIndex.rank`."""
        scores, _ = self._scores(question)
        return [self.passages[place] for place in _first(limit, scores, scores)]

    def best_after(self, together: str, question: str, limit: int) -> list[tuple[Passage, float]]:
        """The best passages for a question after another one, with their scores; see `PassageIndex.rank_follow_up`."""
        scores, total = self._scores(together)
        own, own_total = self._scores(question)
        sums = np.where(scores > 0, scores / total + own / own_total, 0.0)
        return [
            (self.passages[place], min(float(scores[place]) / total, float(own[place]) / own_total))
            for place in _first(limit, sums, scores)
        ]

    def has_all(self, passage: Passage, words: Collection[str]) -> bool:
        """Whether one of the passages has each of these content words, in title, heading or text."""
        place = self._place_of[passage]
        return all(
            _holds(self._in_heading.get(word), place) or _holds(self._in_text.get(word), place)
            for word in words
        )

    def any_has_all(self, words: Collection[str]) -> bool:
        """Whether some passage has each of these content words."""
        if not words:
            return bool(self.passages)
        rarest, *others = sorted((self._places(word) for word in words), key=len)
        for places in others:
            rarest = np.intersect1d(rarest, places, assume_unique=True)
        return bool(len(rarest))

    @cached_property
    def _place_of(self) -> dict[Passage, int]:
        return {passage: place for place, passage in enumerate(self.passages)}

    def _places(self, word: str) -> Places:
        return np.concatenate([found for _, found in self._shares(word)] or [np.empty(0, np.int32)])

    def _shares(self, word: str) -> list[tuple[float, Places]]:
        halves = ((HEADING_SHARE, self._in_heading.get(word)), (TEXT_SHARE, self._in_text.get(word)))
        return [(share, places) for share, places in halves if places is not None]

    def _make_row(self, word: str) -> Scores:
        row = np.zeros(len(self.passages))
        for share, places in self._shares(word):
            row[places] = share
        return row

    def _scores(self, question: str) -> tuple[Scores, float]:
        """Information that each passage shares with a question, and all that the question has."""
        count = len(self.passages)
        scores, total = np.zeros(count), 0.0
        for word in sorted(set(content_words(question))):
            shares = self._shares(word)
            holding = sum(len(places) for _, places in shares)
            weight = math.log(1 + count / (1 + holding))
            total += weight
            if holding * _OFTEN > count:
                scores += weight * self._row(word)
            else:
                for share, places in shares:
                    scores[places] += weight * share
        return scores, total or 1.0


def _as_places(words: dict[str, array[int]]) -> dict[str, Places]:
    return {word: np.frombuffer(places, dtype=np.int32) for word, places in words.items()}


def _holds(places: Places | None, place: int) -> bool:
    if places is None:
        return False
    found = int(np.searchsorted(places, place))
    return found < len(places) and int(places[found]) == place


def _first(limit: int, by: Scores, then_by: Scores) -> Iterable[int]:
    """The places with the highest values above zero, the first of equals; only what may be among them is sorted."""
    if len(by) > limit:
        least = np.partition(by, len(by) - limit)[len(by) - limit]
        places = np.flatnonzero((by >= least) & (by > 0))
    else:
        places = np.flatnonzero(by > 0)
    order = np.lexsort((places, -then_by[places], -by[places]))
    return [int(place) for place in places[order][:limit]]
