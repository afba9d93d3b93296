"""kopf, and nothing but kopf: an event becomes a key in the queue. No work is done here.

Only `on.event` is used, so kopf writes no annotation and no finalizer, and nothing hangs when the operator is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import kopf

from finetune_contract.schedule_crd import PLURAL as SCHEDULES
from finetune_operator.api_group import ALL_NAMESPACES, GROUP, LABEL_RUN, PLURAL, VERSION
from finetune_operator.observed import RunKey
from finetune_operator.schedules.watched import WatchedSchedules
from finetune_operator.watched import WatchedRuns

JOBS, PODS = ("batch", "v1", "jobs"), ("", "v1", "pods")
"""The API server tells only of those that belong to a run: a namespace may hold many others."""
IDLE_SECONDS = 0.2
"""kopf has a task for each object that it hears of, which holds the last event until none has come for so long: with
kopf's own five seconds, all objects of a first list would be held at once.
"""
CHUNK_SIZE = 250
"""The first list is read in pieces: of many Jobs, with their templates, it would be hundreds of MiB at once."""


def registry(runs: WatchedRuns, schedules: WatchedSchedules) -> kopf.OperatorRegistry:
    """Handlers that tell `runs` and `schedules` what happened."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def run_event(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        schedules.run_changed(body, gone=type == "DELETED")
        if type == "DELETED":
            runs.run_gone(RunKey(body["metadata"]["namespace"], body["metadata"]["name"]))
        else:
            runs.run_changed(body)

    @kopf.on.event(GROUP, VERSION, SCHEDULES, registry=handlers)
    async def schedule_event(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        if type == "DELETED":
            schedules.schedule_gone(RunKey(body["metadata"]["namespace"], body["metadata"]["name"]))
        else:
            schedules.schedule_changed(body)

    @kopf.on.event(*JOBS, registry=handlers, labels={LABEL_RUN: kopf.PRESENT})
    async def job_event(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        runs.job_changed(body, gone=type == "DELETED")

    @kopf.on.event(*PODS, registry=handlers, labels={LABEL_RUN: kopf.PRESENT})
    async def pod_event(type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's name
        runs.pod_changed(body, gone=type == "DELETED")

    @kopf.on.event("apps", "v1", "deployments", registry=handlers)
    async def deployment_event(
        type: str | None,  # noqa: A002 - kopf's name
        name: str | None,
        namespace: str | None,
        uid: str | None,
        **_: Any,
    ) -> None:
        gone = type == "DELETED"
        runs.deployment_changed(namespace or "", name or "", "" if gone else uid or "")

    return handlers


def settings() -> kopf.OperatorSettings:
    """kopf with everything off that would write to the cluster or look beyond the watched namespaces."""
    chosen = kopf.OperatorSettings()
    chosen.scanning.disabled = True
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.watching.server_timeout = 300
    chosen.watching.connect_timeout = 5
    chosen.watching.chunk_size = CHUNK_SIZE
    for kind in (JOBS, PODS):
        chosen.watching.label_selectors[kind] = LABEL_RUN
    chosen.queueing.idle_timeout = IDLE_SECONDS
    chosen.watching.inactivity_timeout = 75  # bookmarks come every minute: without one the connection is dead
    chosen.networking.request_timeout = 30
    return chosen


async def watch(
    runs: WatchedRuns,
    schedules: WatchedSchedules,
    namespaces: Sequence[str],
    *,
    started: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    """Watch until `stop` is set, or until kopf gives up.

    kopf takes SIGTERM and SIGINT for itself; whoever wants them back installs handlers once `started` is set.
    """
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    await kopf.operator(
        registry=registry(runs, schedules),
        settings=settings(),
        standalone=True,
        clusterwide=ALL_NAMESPACES in namespaces,
        namespaces=[name for name in namespaces if name != ALL_NAMESPACES],
        ready_flag=started,
        stop_flag=stop,
    )
