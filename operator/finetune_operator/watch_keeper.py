"""Keeps a watch going: one that tells nothing although things change is ended and begun anew.

A broken connection, or one that is idle for too long, is the business of whoever watches. This is about a watch that
looks alive and is not: the resync finds a newer version of a run, and half a minute later no event has told of it.
Must not know what is watched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

logger = logging.getLogger(__name__)

SILENT_SECONDS = 30.0
"""An event may be this much later than the resync that found the change."""
IN_VAIN = 3
"""After so many restarts without an event the process itself is at fault."""
STOP_SECONDS = 2.0

Watch = Callable[[asyncio.Event, asyncio.Event], Awaitable[None]]
"""Watches until the second event is set; sets the first one once it has begun."""


class Told(Protocol):
    """What is known about the events that came."""

    def silent_seconds(self) -> float:
        """For how long a change is known that no event has told of; 0 when there is none."""

    def expect_events(self) -> None:
        """The watch was begun anew: count from now."""


class WatchKeeper:
    """One watch, begun again and again."""

    def __init__(self, watch: Watch, told: Told, begun: Callable[[], None]) -> None:
        """`begun` is called each time the watch has begun."""
        self._watch = watch
        self._told = told
        self._begun = begun
        self._again = asyncio.Event()
        self.restarts = 0
        self._in_vain = 0

    async def run(self) -> None:
        """Watch until the watch ends by itself."""
        while await self._once():
            self.restarts += 1
            self._told.expect_events()

    def check(self) -> None:
        """Call it after each resync: begins the watch anew when it is silent."""
        silent = self._told.silent_seconds()
        if silent == 0:
            self._in_vain = 0
        elif silent > SILENT_SECONDS:
            logger.warning("the watch tells nothing and is begun anew: silent_seconds=%.0f", silent)
            self._in_vain += 1
            self._again.set()

    def problem(self) -> str:
        """Empty, or what /livez says."""
        if self._in_vain < IN_VAIN:
            return ""
        return (
            f"the watch of runs tells nothing although runs change; it was begun anew {self._in_vain} times"
        )

    async def _once(self) -> bool:
        """One watch. True when it was ended for its silence."""
        self._again.clear()
        started, stop = asyncio.Event(), asyncio.Event()
        watching = asyncio.ensure_future(self._watch(started, stop))
        starting = asyncio.create_task(started.wait(), name="watch-start")
        again = asyncio.create_task(self._again.wait(), name="watch-again")
        try:
            await asyncio.wait({watching, starting, again}, return_when=asyncio.FIRST_COMPLETED)
            self._begun()
            await asyncio.wait({watching, again}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                await watching
                return False
            stop.set()
            await asyncio.wait({watching}, timeout=STOP_SECONDS)
            return True
        finally:
            for task in (starting, again, watching):
                task.cancel()
            await asyncio.wait({watching})
