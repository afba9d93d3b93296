"""Who may be at a target now: one run at a time. Those that come meanwhile hold nothing and are called one by one.

A call only says that it is worth coming again: whoever is called may find that somebody was quicker, or may want no
turn any more. So nobody waits for a call alone. Must not know what is done at a target.
"""

from __future__ import annotations

from collections.abc import Callable

from finetune_operator.observed import RunKey

AGAIN_SECONDS = 10.0
"""After this a run that waits comes again by itself."""


class Turns:
    """The targets that somebody is at, and who waits for each."""

    def __init__(self, call: Callable[[RunKey], None]) -> None:
        self._call = call
        self._taken: set[str] = set()
        self._waiting: dict[str, dict[RunKey, None]] = {}
        """By target, in the order in which they came."""

    @property
    def waiting(self) -> int:
        """Runs that wait for their turn."""
        return sum(len(keys) for keys in self._waiting.values())

    def take(self, target: str, key: RunKey) -> bool:
        """Begin a turn; False when another run is at the target: this one will be called."""
        if target in self._taken:
            self._waiting.setdefault(target, {})[key] = None
            return False
        self._taken.add(target)
        self._forget(target, key)
        return True

    def end(self, target: str) -> None:
        """The turn is over: the one that has waited longest is called, and the others wait on."""
        self._taken.discard(target)
        called = next(iter(self._waiting.get(target, ())), None)
        if called is not None:
            self._forget(target, called)
            self._call(called)

    def _forget(self, target: str, key: RunKey) -> None:
        waiting = self._waiting.get(target, {})
        waiting.pop(key, None)
        if not waiting:
            self._waiting.pop(target, None)
