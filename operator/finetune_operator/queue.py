"""A queue of keys: one worker a key, no key twice, delays, backoff with jitter. Must not know what a key means.

An event only says that a key is worth looking at. A key that is added while it is worked on is worked on again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from finetune_operator.errors import OperatorError
from finetune_operator.observed import RunKey

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0
JITTER = 0.2

Work = Callable[[RunKey], Awaitable[float | None]]


class WorkQueue:
    """Keys to be worked on, by at most `concurrency` workers at once."""

    def __init__(self, work: Work, *, concurrency: int, chance: Callable[[], float] = random.random) -> None:
        self._work = work
        self._concurrency = concurrency
        self._chance = chance
        self._ready: asyncio.Queue[RunKey] = asyncio.Queue()
        self._queued: set[RunKey] = set()
        self._working: set[RunKey] = set()
        self._again: set[RunKey] = set()
        self._timers: dict[RunKey, asyncio.TimerHandle] = {}
        self._failures: dict[RunKey, int] = {}
        self.passes = 0
        self.failed_passes = 0

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._queued)

    @property
    def working(self) -> int:
        """Keys that are worked on now."""
        return len(self._working)

    def add(self, key: RunKey) -> None:
        """Have the key worked on soon. A delay or a backoff that it waits in ends."""
        self._cancel_timer(key)
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: RunKey, seconds: float) -> None:
        """Have the key worked on later, unless it is earlier anyway."""
        if seconds <= 0:
            self.add(key)
            return
        if key in self._queued or key in self._again:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= due:
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_at(due, self._due, key)

    def expects(self, key: RunKey) -> bool:
        """The key is worked on now or later, without anybody adding it."""
        return key in self._queued or key in self._working or key in self._timers

    def forget(self, key: RunKey) -> None:
        """The key's object is gone: no timer and no memory of failures."""
        self._cancel_timer(key)
        self._failures.pop(key, None)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._working.add(key)
            delay: float | None
            try:
                delay = await self._work(key)
                self._failures.pop(key, None)
            except OperatorError as error:
                delay = self._backoff(key)
                logger.warning("pass failed: run=%s retry_seconds=%.1f: %s", key, delay, error)
            except Exception:
                delay = self._backoff(key)
                logger.exception(
                    "pass failed by a fault of the operator: run=%s retry_seconds=%.1f", key, delay
                )
            finally:
                self.passes += 1
                self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif delay is not None:
                self.add_after(key, delay)

    def _backoff(self, key: RunKey) -> float:
        """Seconds until the next try; doubles with each failure, a little by chance so that keys spread."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.failed_passes += 1
        seconds = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 16))
        return seconds * (1 + JITTER * self._chance())

    def _due(self, key: RunKey) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: RunKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
