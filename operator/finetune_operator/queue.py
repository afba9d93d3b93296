"""A queue of keys: one worker a key, no key twice, delays, backoff with jitter. Must not know what a key means.

An event only says that a key is worth looking at. A key that is added while it is worked on is worked on again. Looks
that are in no hurry give way to all others, and never hold more than half of the workers.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

from finetune_operator.errors import OperatorError
from finetune_operator.observed import RunKey
from finetune_operator.outlook import Unhurried

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0
JITTER = 0.2

FAULT = "Fault"
"""What a pass is said to have failed by where the operator itself is at fault."""

Work = Callable[[RunKey], Awaitable[float | None]]
Ended = Callable[[float, str], None]
"""Told of each pass: its seconds, and the class of the error that it failed by, or nothing."""


class WorkQueue:
    """Keys to be worked on, by at most `concurrency` workers at once."""

    def __init__(
        self,
        work: Work,
        *,
        concurrency: int,
        chance: Callable[[], float] = random.random,
        ended: Ended = lambda seconds, failure: None,
    ) -> None:
        self._work = work
        self._ended = ended
        self._concurrency = concurrency
        self._chance = chance
        self._urgent: deque[RunKey] = deque()
        self._unhurried: deque[RunKey] = deque()
        self._arrived = asyncio.Event()
        self._queued: dict[RunKey, deque[RunKey]] = {}
        """In which of the two a key waits. The entry that it left behind in the other one counts for nothing."""
        self._working: set[RunKey] = set()
        self._again: set[RunKey] = set()
        self._timers: dict[RunKey, asyncio.TimerHandle] = {}
        self._failures: dict[RunKey, int] = {}

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
        else:
            self._put(key, self._urgent)

    def _put(self, key: RunKey, ready: deque[RunKey]) -> None:
        now = self._queued.get(key)
        if now is ready or now is self._urgent:
            return
        self._queued[key] = ready
        ready.append(key)
        self._arrived.set()

    def _take(self, *readies: deque[RunKey]) -> RunKey | None:
        """The key that has waited longest in the first that has one."""
        for ready in readies:
            while ready:
                key = ready.popleft()
                if self._queued.get(key) is ready:
                    del self._queued[key]
                    return key
        return None

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
        ready = self._unhurried if isinstance(seconds, Unhurried) else self._urgent
        self._timers[key] = loop.call_at(due, self._due, key, ready)

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
            for number in range(self._concurrency):
                for_urgent_alone = number < self._concurrency // 2
                readies = (self._urgent,) if for_urgent_alone else (self._urgent, self._unhurried)
                group.create_task(self._worker(*readies))

    async def _worker(self, *readies: deque[RunKey]) -> None:
        while True:
            key = self._take(*readies)
            if key is None:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            self._working.add(key)
            delay: float | None
            began, failure = time.monotonic(), ""
            try:
                delay = await self._work(key)
                self._failures.pop(key, None)
            except OperatorError as error:
                delay, failure = self._backoff(key), type(error).__name__
                logger.warning("pass failed: run=%s retry_seconds=%.1f: %s", key, delay, error)
            except Exception:
                delay, failure = self._backoff(key), FAULT
                logger.exception(
                    "pass failed by a fault of the operator: run=%s retry_seconds=%.1f", key, delay
                )
            finally:
                self._working.discard(key)
                self._ended(time.monotonic() - began, failure)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif delay is not None:
                self.add_after(key, delay)

    def _backoff(self, key: RunKey) -> float:
        """Seconds until the next try; doubles with each failure, a little by chance so that keys spread."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        seconds = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 16))
        return seconds * (1 + JITTER * self._chance())

    def _due(self, key: RunKey, ready: deque[RunKey]) -> None:
        self._timers.pop(key, None)
        self._put(key, ready)

    def _cancel_timer(self, key: RunKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
