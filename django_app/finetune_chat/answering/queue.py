"""A short queue before a small model: a few answers at once, a few readers waiting, the rest asked to come back.

Counts in this process only; belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator

from finetune_chat.answering.errors import QueueFull

HEARTBEAT_SECONDS = 10.0


class Ticket:
    """A place in the queue, and then a slot. Must be given back."""

    def __init__(self, queue: AnswerQueue) -> None:
        self._queue = queue
        self._moved = asyncio.Event()
        self.position = 0
        """Readers before this one plus one; 0 when it is its turn."""

    async def positions(self) -> AsyncGenerator[int, None]:
        """The position whenever it changes, and again from time to time as a sign of life; ends when it is the turn."""
        while self.position > 0:
            self._moved.clear()  # before it is told: whoever moves on while it is written is not overlooked
            yield self.position
            try:
                await asyncio.wait_for(self._moved.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                continue

    def move_to(self, position: int) -> None:
        """Called by the queue."""
        if position != self.position:
            self.position = position
            self._moved.set()

    def give_back(self) -> None:
        """Free the place or the slot; may be called twice."""
        self._queue.remove(self)


class AnswerQueue:
    """Slots and those who wait for one, first come first served."""

    def __init__(self, slots: int, waiting: int) -> None:
        self._slots = slots
        self._limit = waiting
        self._running: set[Ticket] = set()
        self._waiting: deque[Ticket] = deque()
        self._mean_seconds = 8.0

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Readers in the queue."""
        return len(self._waiting)

    def require_room(self) -> None:
        """Check before promising an answer.

        Raises:
            QueueFull: neither a slot nor a place in the queue is free.
        """
        if len(self._running) >= self._slots and len(self._waiting) >= self._limit:
            rounds = (len(self._waiting) + 1) / self._slots
            raise QueueFull(max(1, math.ceil(rounds * self._mean_seconds)))

    def enter(self) -> Ticket:
        """Take a slot, or a place in the queue.

        Raises:
            QueueFull: neither is free.
        """
        self.require_room()
        ticket = Ticket(self)
        if len(self._running) < self._slots:
            self._running.add(ticket)
            return ticket
        self._waiting.append(ticket)
        ticket.move_to(len(self._waiting))
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Give a slot to the next one, and let the others move up."""
        if ticket in self._running:
            self._running.remove(ticket)
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
        while self._waiting and len(self._running) < self._slots:
            following = self._waiting.popleft()
            self._running.add(following)
            following.move_to(0)
        for position, waiting in enumerate(self._waiting, start=1):
            waiting.move_to(position)

    def learn_duration(self, seconds: float) -> None:
        """An answer took this long; the advice when to come back follows the mean."""
        self._mean_seconds += 0.2 * (seconds - self._mean_seconds)
