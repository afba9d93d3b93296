"""Gather, decide, act for schedules. Must not know kopf or the queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from finetune_contract.schedule_status import FineTuneScheduleStatus, ScheduleReason
from finetune_operator.errors import ClusterRefused, InvalidRun, NotFound, StaleObject
from finetune_operator.observed import RunKey
from finetune_operator.reading import status_of
from finetune_operator.schedules import reading
from finetune_operator.schedules.decide import decide
from finetune_operator.schedules.observed import Schedule, ScheduleAction
from finetune_operator.schedules.words import with_conditions
from finetune_operator.timestamps import to_rfc3339

logger = logging.getLogger(__name__)

AT_ONCE = 0.0
REFUSED_SECONDS = 60.0
INVALID_SECONDS = 300.0


class Schedules(Protocol):
    """What reconciling needs of the cluster."""

    async def read_schedule(self, key: RunKey) -> dict[str, Any] | None: ...
    async def list_children(self, schedule: Schedule) -> list[dict[str, Any]]: ...
    async def apply(self, schedule: Schedule, actions: Sequence[ScheduleAction], now: str) -> None: ...
    async def write_status(
        self, key: RunKey, resource_version: str, status: FineTuneScheduleStatus
    ) -> object: ...


class ScheduleReconciler:
    """Looks at one schedule."""

    def __init__(self, cluster: Schedules, clock: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._clock = clock

    async def reconcile(self, key: RunKey) -> float | None:
        """One pass; seconds until the next one, or None to wait for an event."""
        body = await self._cluster.read_schedule(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return None
        try:
            schedule = reading.schedule(body)
        except InvalidRun as error:
            return await self._say_invalid(key, body, error)
        bodies = await self._cluster.list_children(schedule)
        children = [child for child in map(reading.child, bodies) if child is not None]
        now = self._clock()
        decision = decide(schedule, children, now)
        again = decision.requeue_after
        status = decision.status
        try:
            await self._cluster.apply(schedule, decision.actions, to_rfc3339(now))
        except StaleObject:
            return AT_ONCE
        except ClusterRefused as error:
            logger.warning("action refused: schedule=%s: %s", key, error)
            status = _refused(schedule, error, now)
            again = REFUSED_SECONDS
        if status == schedule.status:
            return again
        try:
            return await self._write(key, schedule.resource_version, status, again)
        except ClusterRefused as error:
            logger.warning("status refused: schedule=%s: %s", key, error)
            return await self._say_refused(schedule, error, now)

    async def _say_refused(self, schedule: Schedule, error: ClusterRefused, now: datetime) -> float | None:
        """Tell in the status that is there that the newest one cannot be written."""
        status = _refused(schedule, error, now)
        if status == schedule.status:
            return REFUSED_SECONDS
        return await self._write(schedule.key, schedule.resource_version, status, REFUSED_SECONDS)

    async def _say_invalid(self, key: RunKey, body: dict[str, Any], error: InvalidRun) -> float | None:
        """Tell the user of a spec that cannot be read. A status that cannot be read either is left as it is."""
        metadata = body["metadata"]
        try:
            before = status_of(body, FineTuneScheduleStatus)
        except InvalidRun:
            logger.warning("schedule not readable: schedule=%s: %s", key, error)
            return INVALID_SECONDS
        generation = int(metadata.get("generation") or 0)
        status = with_conditions(before, generation, ScheduleReason.INVALID_SPEC, str(error), self._clock())
        if status == before:
            return INVALID_SECONDS
        logger.warning("schedule not readable: schedule=%s: %s", key, error)
        return await self._write(key, str(metadata.get("resourceVersion") or ""), status, INVALID_SECONDS)

    async def _write(
        self, key: RunKey, version: str, status: FineTuneScheduleStatus, again: float | None
    ) -> float | None:
        """Write it; `again` is when the next look is due."""
        try:
            await self._cluster.write_status(key, version, status)
        except StaleObject:
            return AT_ONCE
        except NotFound:
            return None
        return again


def _refused(schedule: Schedule, error: ClusterRefused, now: datetime) -> FineTuneScheduleStatus:
    words = f"the API server refuses: {error}; this is tried again every minute"
    return with_conditions(schedule.status, schedule.generation, ScheduleReason.REFUSED, words, now)
