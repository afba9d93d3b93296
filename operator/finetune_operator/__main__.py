"""Starts the operator: settings, Lease, watches, workers, resync; ends the process when one of them ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from datetime import UTC, datetime

from finetune_operator import health, operator_log, resync
from finetune_operator.api_server import load_access
from finetune_operator.children import Children
from finetune_operator.cluster import Cluster, connected
from finetune_operator.errors import InvalidSettings, NotFound, OperatorError
from finetune_operator.handlers import watch
from finetune_operator.leadership import Leadership
from finetune_operator.listable import listable
from finetune_operator.memory import Memory
from finetune_operator.metrics import CONTENT_TYPE, Gauges, Metrics
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile import Reconciler
from finetune_operator.schedules.reconcile import ScheduleReconciler
from finetune_operator.schedules.schedule_cluster import ScheduleCluster
from finetune_operator.schedules.watched import WatchedSchedules
from finetune_operator.settings import Settings, read_settings
from finetune_operator.usage import Prices
from finetune_operator.watch_keeper import WatchKeeper
from finetune_operator.watched import WatchedRuns

logger = logging.getLogger("finetune_operator")

SCHEDULES_AT_ONCE = 4
EXIT_BAD_SETTINGS = 2
EXIT_ENDED = 3
STOP_SECONDS = 3.0
"""After this the process ends whatever still hangs: another replica may be acting."""
SILENT_RESYNCS = 3
LEASE_SILENT_SECONDS = 60.0


def main() -> None:
    """`python -m finetune_operator`, or `finetune-operator`."""
    try:
        settings = read_settings()
    except InvalidSettings as error:
        sys.stderr.write(f"finetune-operator: {error}\n")
        sys.exit(EXIT_BAD_SETTINGS)
    operator_log.set_up(settings.log_level, settings.log_format)
    sys.exit(asyncio.run(run_operator(settings)))


async def run_operator(settings: Settings) -> int:
    """Everything, until a signal comes or a part ends. The exit status."""
    try:
        await load_access()
    except OperatorError as error:
        logger.error("%s", error)
        return EXIT_BAD_SETTINGS
    async with connected(settings.trainer_image) as cluster:
        return await Process(settings, cluster).run()


class Process:
    """The parts of a running operator."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster
        self._leadership = Leadership(
            cluster,
            settings.own_namespace,
            settings.lease_name,
            settings.identity,
            monotonic=time.monotonic,
            clock=_now,
        )
        self._memory: Memory[Children] = Memory()
        prices = Prices(settings.gpu_prices, settings.currency)
        self._metrics = Metrics(self._gauges())
        reconciler = Reconciler(
            cluster,
            _now,
            prices,
            self._memory,
            lambda key: self._queue.add(key),
            written=self._metrics.status_written,
            refusal=self._metrics.refused,
        )
        self._queue = WorkQueue(
            reconciler.reconcile, concurrency=settings.concurrency, ended=self._metrics.pass_ended
        )
        self._runs = WatchedRuns(self._queue, self._memory)
        self._schedules_of = ScheduleCluster(cluster.server)
        scheduler = ScheduleReconciler(self._schedules_of, _now)
        self._schedule_queue = WorkQueue(scheduler.reconcile, concurrency=SCHEDULES_AT_ONCE)
        self._schedules = WatchedSchedules(self._schedule_queue)
        self._watches = WatchKeeper(self._watch, self._runs, begun=self._take_signals)
        self._began = time.monotonic()
        self._resync_tried_at: float | None = None
        self._resyncs = 0
        self._has_read = asyncio.Event()
        """Everything was listed once, or tried to: events tell of what comes after it."""
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Until SIGTERM or SIGINT (0), or until a part ends by itself (EXIT_ENDED)."""
        self._take_signals()
        runner = None
        if self._settings.http_port:
            port, metrics = self._settings.http_port, self._metrics.text
            runner = await health.serve(port, self._live, self._ready, metrics, CONTENT_TYPE)
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            elected = asyncio.create_task(self._leadership.acquire(), name="election")
            await asyncio.wait({stopped, elected}, return_when=asyncio.FIRST_COMPLETED)
            if not elected.done():
                elected.cancel()
                return 0
            return await self._lead(stopped)
        finally:
            stopped.cancel()
            if runner is not None:
                await runner.cleanup()

    async def _lead(self, stopped: asyncio.Task[bool]) -> int:
        parts = {
            asyncio.create_task(self._watches.run(), name="watch"),
            asyncio.create_task(self._queue.run(), name="queue"),
            asyncio.create_task(self._schedule_queue.run(), name="schedules"),
            asyncio.create_task(self._resync(), name="resync"),
            asyncio.create_task(self._leadership.keep(), name="lease"),
        }
        logger.info("working: namespaces=%s", ",".join(self._settings.watch_namespaces))
        await asyncio.wait({stopped, *parts}, return_when=asyncio.FIRST_COMPLETED)
        code = 0
        for part in parts:
            if part.done():
                code = EXIT_ENDED
                problem = None if part.cancelled() else part.exception()
                logger.error("ending, because the %s ended: %s", part.get_name(), problem or "without a word")
        for part in parts:
            part.cancel()
        _, hanging = await asyncio.wait(parts, timeout=STOP_SECONDS)
        if hanging:
            logger.error("ending although these hang: %s", ", ".join(part.get_name() for part in hanging))
            logging.shutdown()
            os._exit(EXIT_ENDED)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leadership.release(), STOP_SECONDS)
        return code

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    async def _watch(self, started: asyncio.Event, stop: asyncio.Event) -> None:
        await self._has_read.wait()
        namespaces = await listable(self._cluster.may_list_runs, self._settings.watch_namespaces)
        await watch(self._runs, self._schedules, namespaces, started=started, stop=stop)

    async def _read_everything(self) -> None:
        """So that the first look at each run asks for nothing. Where that fails, each look reads for itself."""
        for namespace in self._settings.watch_namespaces:
            try:
                await resync.read_everything(self._cluster, self._memory, namespace)
            except OperatorError as error:
                logger.warning("not all could be listed: namespace=%s: %s", namespace, error)
        self._has_read.set()

    async def _resync(self) -> None:
        """List everything from time to time: finds what no event told."""
        self._resync_tried_at = time.monotonic()
        await self._read_everything()
        while True:
            self._resync_tried_at = time.monotonic()
            for namespace in self._settings.watch_namespaces:
                try:
                    await resync.list_runs(
                        self._cluster, self._runs, namespace, self._settings.resync_seconds
                    )
                    if self._resyncs:
                        await resync.list_children(self._cluster, self._runs, namespace)
                except OperatorError as error:
                    logger.warning("resync failed: namespace=%s: %s", namespace, error)
                await self._resync_schedules(namespace)
            self._resyncs += 1
            self._watches.check()
            await asyncio.sleep(self._settings.resync_seconds)

    async def _resync_schedules(self, namespace: str) -> None:
        try:
            await self._schedules.resync(self._schedules_of, namespace)
        except NotFound:
            logger.info("no FineTuneSchedules: their CustomResourceDefinition is not installed")
        except OperatorError as error:
            logger.warning("resync of schedules failed: namespace=%s: %s", namespace, error)

    def _live(self) -> str:
        """Standing still is what liveness must find; an API server that is down is not."""
        if not self._leadership.held:
            return ""
        since = time.monotonic() - (self._resync_tried_at or self._began)
        if since > SILENT_RESYNCS * self._settings.resync_seconds:
            return f"no resync for {since:.0f} s"
        return self._watches.problem()

    def _ready(self) -> str:
        answered = self._leadership.last_answer_at
        if answered is None or time.monotonic() - answered > LEASE_SILENT_SECONDS:
            return "the API server does not answer"
        return ""

    def _lease_age_seconds(self) -> float:
        return time.monotonic() - (self._leadership.last_answer_at or self._began)

    def _gauges(self) -> Gauges:
        return Gauges(
            leader=lambda: self._leadership.held,
            lease_age_seconds=self._lease_age_seconds,
            runs=lambda: self._runs.census.by_phase(),
            schedules=lambda: self._schedules.by_reason(),
            longest_waits=lambda: self._runs.census.longest_waits(_now()),
            queue_depth=lambda: self._queue.depth,
            working=lambda: self._queue.working,
            resyncs=lambda: self._resyncs,
            watch_silent_seconds=lambda: self._runs.silent_seconds(),
            watch_event_age_seconds=lambda: self._runs.event_age_seconds(),
            watch_restarts=lambda: self._watches.restarts,
        )


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
