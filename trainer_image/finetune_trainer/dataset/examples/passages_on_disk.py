"""The passages of a site, which wait on disk: memory holds where each begins, and the few that were read last.

A passage has a number, which is its place among all of the site. Knows no search and no question.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune_contract.sections import Passage
from finetune_trainer.dataset.on_disk import NamelessFile, ReadOnDemand

_HELD_BYTES = 2_000_000
"""Of passages that were read last: search finds the same ones for the next question."""


@dataclass(frozen=True, eq=False)
class Fact:
    """A section with a sentence in it that answers the question its heading asks."""

    passage: Passage
    answer: str
    """One or two sentences of the section, word for word."""
    number: int
    """Of its passage."""

    @property
    def url(self) -> str:
        """Of its document."""
        return self.passage.url


class PassagesOnDisk(ReadOnDemand[Passage]):
    """Passages by number, each with the sentence that answers its heading, where there is one."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is made when it is missing; None is the system's own."""
        self._file = NamelessFile(folder)
        self._starts = array("Q", [0])
        """Of each passage, and where the next one will begin."""
        self._held: dict[int, tuple[Passage, str]] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._starts) - 1

    def _at(self, index: int) -> Passage:
        return self._row(index)[0]

    def of_numbers(self, numbers: Iterable[int]) -> list[Passage]:
        """Several passages."""
        return [self._row(number)[0] for number in numbers]

    def add(self, passage: Passage, answer: str = "") -> int:
        """Write one more; its number."""
        row = json.dumps([passage.title, passage.heading, passage.text, passage.url, answer])
        start, size = self._file.append(row.encode())
        self._starts.append(start + size)
        return len(self) - 1

    def fact(self, number: int) -> Fact:
        """A passage with its answer."""
        return Fact(*self._row(number), number)

    def _row(self, number: int) -> tuple[Passage, str]:
        row = self._held.get(number)
        if row is None:
            start, end = self._starts[number], self._starts[number + 1]
            *passage, answer = json.loads(self._file.read((start, end - start)))
            self._held_bytes += end - start
            if self._held_bytes > _HELD_BYTES:
                self._held.clear()
                self._held_bytes = end - start
            row = self._held[number] = (Passage(*passage), answer)
        return row


class Facts(ReadOnDemand[Fact]):
    """Some of the passages, as facts."""

    def __init__(self, passages: PassagesOnDisk, numbers: Iterable[int]) -> None:
        self._passages = passages
        self.numbers: Sequence[int] = array("I", numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def _at(self, index: int) -> Fact:
        return self._passages.fact(self.numbers[index])


class FactsByPassage:
    """Finds the fact of a passage; of equal passages the last one's."""

    def __init__(self, passages: PassagesOnDisk, facts: Facts) -> None:
        self._passages = passages
        hashes = np.fromiter((hash(fact.passage) for fact in facts), np.int64, len(facts))
        order = np.argsort(hashes, kind="stable")
        self._hashes = array("q", hashes[order].tobytes())
        self._numbers = array("I", (facts.numbers[place] for place in order))

    def get(self, passage: Passage) -> Fact | None:
        """The fact of an equal passage, if there is one."""
        wanted = hash(passage)
        place = bisect_right(self._hashes, wanted) - 1
        while place >= 0 and self._hashes[place] == wanted:
            fact = self._passages.fact(self._numbers[place])
            if fact.passage == passage:
                return fact
            place -= 1
        return None
