"""Counts and lengths of examples by kind: for the report, the log, and whoever plans training time. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Example
from finetune_contract.run_spec import ExampleKind

_ALL = "all"
"""The last line."""


@dataclass(frozen=True)
class KindSummary:
    """One line of the table; lengths are in words, or in what `count` counts."""

    kind: str
    rows: int
    mean_prompt: float
    mean_answer: float
    longest: int
    """Prompt and answer together."""


def count_words(text: str) -> int:
    """Words between blanks; about three quarters of a model's tokens."""
    return len(text.split())


@dataclass(frozen=True)
class HistogramBar:
    """How many lengths are from `start` to below `end`."""

    start: int
    end: int
    count: int


@dataclass(frozen=True)
class Histogram:
    """Lengths in bars of one width, with the numbers that people ask for."""

    bars: tuple[HistogramBar, ...]
    median: int
    ninety_percent: int
    """Nine of ten are no longer."""
    longest: int

    @property
    def highest(self) -> int:
        """Count of the highest bar, at least 1."""
        return max((bar.count for bar in self.bars), default=1) or 1


def histogram(lengths: Sequence[int], most_bars: int = 24) -> Histogram:
    """At most `most_bars` bars from zero, of a round width; the last holds all beyond the longest hundredth."""
    if not lengths:
        return Histogram((), 0, 0, 0)
    ordered = sorted(lengths)
    nearly_all = ordered[int(0.99 * (len(ordered) - 1))]
    width = _round_width((nearly_all + 1) / most_bars)
    places = Counter(min(length // width, nearly_all // width) for length in ordered)
    bars = tuple(
        HistogramBar(place * width, (place + 1) * width, places[place])
        for place in range(nearly_all // width + 1)
    )
    return Histogram(bars, _part(ordered, 0.5), _part(ordered, 0.9), ordered[-1])


def balance_of_kinds(examples: Sequence[Example]) -> float:
    """Entropy of the kinds, as a share of the most that so many kinds can have: 1 is an even mixture, 0 one kind."""
    counts = Counter(example.kind for example in examples)
    if len(counts) < 2:
        return 0.0
    shares = [count / len(examples) for count in counts.values()]
    return -sum(share * math.log(share) for share in shares) / math.log(len(counts))


def example_words(example: Example) -> int:
    """Words of prompt and answer together."""
    return sum(count_words(message.content) for message in example.prompt) + count_words(example.answer)


def summarise(examples: Iterable[Example], count: Callable[[str], int] = count_words) -> list[KindSummary]:
    """A line for every kind that occurs, and one for all. Pass a tokenizer's length as `count` for tokens."""
    totals: dict[str, _Total] = {}
    for example in examples:
        prompt = sum(count(message.content) for message in example.prompt)
        answer = count(example.answer)
        for name in (example.kind.value, _ALL):
            totals.setdefault(name, _Total()).add(prompt, answer)
    return [
        KindSummary(name, total.rows, total.prompt / total.rows, total.answer / total.rows, total.longest)
        for name in (*(kind.value for kind in ExampleKind), _ALL)
        if (total := totals.get(name)) is not None
    ]


@dataclass
class _Total:
    rows: int = 0
    prompt: int = 0
    answer: int = 0
    longest: int = 0

    def add(self, prompt: int, answer: int) -> None:
        self.rows += 1
        self.prompt += prompt
        self.answer += answer
        self.longest = max(self.longest, prompt + answer)


def as_table(summaries: Sequence[KindSummary]) -> str:
    """The summary as lines of text."""
    lines = [f"{'kind':12} {'rows':>7} {'prompt':>8} {'answer':>8} {'longest':>8}"]
    lines += [
        f"{entry.kind:12} {entry.rows:7d} {entry.mean_prompt:8.1f} {entry.mean_answer:8.1f} {entry.longest:8d}"
        for entry in summaries
    ]
    return "\n".join(lines)


def _part(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _round_width(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is not below `least`."""
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power >= least:
                return step * power
        power *= 10
