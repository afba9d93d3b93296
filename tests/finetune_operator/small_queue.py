"""A queue that only remembers, and a list that is whole. Not a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from finetune_operator.children import Children
from finetune_operator.memory import Memory
from finetune_operator.observed import RunKey
from finetune_operator.watched import WatchedRuns


class Keys:
    """What a queue was asked for."""

    def __init__(self) -> None:
        self.added: list[RunKey] = []
        self.added_later: list[tuple[RunKey, float]] = []
        self.forgotten: list[RunKey] = []
        self.expected: set[RunKey] = set()

    def add(self, key: RunKey) -> None:
        self.added.append(key)

    def add_after(self, key: RunKey, seconds: float) -> None:
        self.added_later.append((key, seconds))

    def expects(self, key: RunKey) -> bool:
        return key in self.expected

    def forget(self, key: RunKey) -> None:
        self.forgotten.append(key)


def watched(
    queue: Keys | None = None,
    memory: Memory[Children] | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> WatchedRuns:
    """Runs that are watched, with chance left out."""
    return WatchedRuns(queue or Keys(), Memory() if memory is None else memory, clock, lambda: 0.5)


def listed(runs: WatchedRuns, namespace: str, bodies: Iterable[Mapping[str, Any]]) -> None:
    """A list of all runs, to its end."""
    runs.not_listed(namespace, {runs.listed_run(body, 60.0) for body in bodies})
