"""What events and resyncs say about schedules and their runs, turned into keys in the queue. Must not know kopf."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from finetune_operator.api_group import ALL_NAMESPACES
from finetune_operator.observed import RunKey
from finetune_operator.reading import run_key
from finetune_operator.schedules import reading

Json = Mapping[str, Any]


class KeyQueue(Protocol):
    """The part of the queue that is needed here."""

    def add(self, key: RunKey) -> None: ...
    def expects(self, key: RunKey) -> bool: ...
    def forget(self, key: RunKey) -> None: ...


class ScheduleLists(Protocol):
    """What is listed."""

    def schedule_pages(self, namespace: str) -> AsyncIterator[list[dict[str, Any]]]: ...


class WatchedSchedules:
    """The schedules that are known, and where their runs are."""

    def __init__(self, queue: KeyQueue) -> None:
        self._queue = queue
        self._generations: dict[RunKey, tuple[object, ...]] = {}
        self._reasons: dict[RunKey, str] = {}
        self._runs: dict[RunKey, tuple[object, ...]] = {}

    def __len__(self) -> int:
        return len(self._generations)

    def schedule_changed(self, body: Json) -> None:
        """A schedule was added or changed. The operator's own words wake nobody."""
        key, metadata = reading.schedule_key(body), body["metadata"]
        self._reasons[key] = reading.ready_reason(body)
        seen = (metadata.get("uid"), metadata.get("generation"))
        if self._generations.get(key) != seen:
            self._generations[key] = seen
            self._queue.add(key)

    def schedule_gone(self, key: RunKey) -> None:
        """A schedule was deleted; its runs go by their ownerReferences."""
        self._generations.pop(key, None)
        self._reasons.pop(key, None)
        self._queue.forget(key)

    def by_reason(self) -> Mapping[tuple[str, str], int]:
        """How many there are, by namespace and by why they are Ready or not."""
        return Counter((key.namespace, reason) for key, reason in self._reasons.items())

    def run_changed(self, body: Json, *, gone: bool = False) -> None:
        """A run was made, has moved or is gone; perhaps a schedule waits for that."""
        schedule = reading.owning_schedule(body)
        if schedule is None:
            return
        key = run_key(body)
        seen = ("gone",) if gone else reading.wakers(body)
        if self._runs.get(key) == seen:
            return
        if gone:
            self._runs.pop(key, None)
        else:
            self._runs[key] = seen
        if schedule in self._generations:
            self._queue.add(schedule)

    async def resync(self, lists: ScheduleLists, namespace: str) -> None:
        """List all: one that no event told of, or that nobody would look at again, is looked at."""
        seen: set[RunKey] = set()
        async for page in lists.schedule_pages(namespace):
            for body in page:
                key = reading.schedule_key(body)
                seen.add(key)
                self.schedule_changed(body)
                if not self._queue.expects(key):
                    self._queue.add(key)
        within = [key for key in self._generations if namespace in (ALL_NAMESPACES, key.namespace)]
        for key in [key for key in within if key not in seen]:
            self.schedule_gone(key)
