"""What schedules ask of the Kubernetes API: read them and their runs; make, cancel and remove runs; write their status.

| API group            | resource                     | verbs                       | where   |
|----------------------|------------------------------|-----------------------------|---------|
| finetune-operator.io | finetuneschedules            | get, list, watch            | watched |
| finetune-operator.io | finetuneschedules/status     | patch                       | watched |
| finetune-operator.io | finetuneschedules/finalizers | update                      | watched |
| finetune-operator.io | finetuneruns                 | list, create, patch, delete | watched |
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from finetune_contract.crd_schema import API_VERSION
from finetune_contract.crd_schema import PLURAL as RUNS
from finetune_contract.schedule_crd import KIND, PLURAL
from finetune_contract.schedule_status import FineTuneScheduleStatus
from finetune_operator.api_group import FIELD_MANAGER, objects
from finetune_operator.api_server import ApiServer
from finetune_operator.errors import AlreadyThere, NotFound, OperatorError
from finetune_operator.events import RunEvent, event_body
from finetune_operator.observed import RunKey
from finetune_operator.schedules.observed import CancelRun, CreateRun, DeleteRun, Schedule, ScheduleAction
from finetune_operator.schedules.reading import selector
from finetune_operator.schedules.run_manifest import LABEL_CAUSE

logger = logging.getLogger(__name__)

MERGE_PATCH = "application/merge-patch+json"

Json = dict[str, Any]


class ScheduleCluster:
    """The API server as schedules see it."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def schedule_pages(self, namespace: str) -> AsyncIterator[list[Json]]:
        """All schedules of a namespace, or of every one for `*`, page by page."""
        return self._server.pages(objects(namespace, PLURAL))

    async def read_schedule(self, key: RunKey) -> Json | None:
        """The schedule as JSON; None when it is gone."""
        try:
            return await self._server.call("GET", f"{objects(key.namespace, PLURAL)}/{key.name}")
        except NotFound:
            return None

    async def list_children(self, schedule: Schedule) -> list[Json]:
        """The runs that this schedule made."""
        return await self._server.list(
            objects(schedule.namespace, RUNS), {"labelSelector": selector(schedule)}
        )

    async def apply(self, schedule: Schedule, actions: Sequence[ScheduleAction], now: str) -> None:
        """Carry out what was decided, in order. Every action may be done twice.

        Raises:
            ClusterRefused: the API server will not take one of them; the ones after it were not tried.
        """
        runs = objects(schedule.namespace, RUNS)
        for action in actions:
            match action:
                case CreateRun(name, manifest):
                    await self._create(schedule, name, manifest, now)
                case CancelRun(name):
                    query, patch = {"fieldManager": FIELD_MANAGER}, {"spec": {"cancel": True}}
                    await self._server.call("PATCH", f"{runs}/{name}", query, patch, MERGE_PATCH)
                    logger.info("run told to end: schedule=%s run=%s", schedule.key, name)
                case DeleteRun(name, uid):
                    await self._delete(f"{runs}/{name}", uid)
                    logger.info("run removed: schedule=%s run=%s", schedule.key, name)

    async def _create(self, schedule: Schedule, name: str, manifest: Json, now: str) -> None:
        query = {"fieldManager": FIELD_MANAGER}
        try:
            await self._server.call("POST", objects(schedule.namespace, RUNS), query, manifest)
        except AlreadyThere:
            return
        cause = manifest["metadata"]["labels"][LABEL_CAUSE]
        logger.info("run made: schedule=%s run=%s cause=%s", schedule.key, name, cause)
        await self._publish(schedule, RunEvent("RunCreated", f"made finetunerun {name} ({cause})"), now)

    async def _delete(self, path: str, uid: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._server.call("DELETE", path, None, body)
        except NotFound:
            return

    async def _publish(self, schedule: Schedule, event: RunEvent, now: str) -> None:
        """News, not state: an event that is lost is only logged."""
        place = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": schedule.name,
            "namespace": schedule.namespace,
            "uid": schedule.uid,
        }
        try:
            path = f"/api/v1/namespaces/{schedule.namespace}/events"
            await self._server.call("POST", path, None, event_body(place, event, now))
        except OperatorError as error:
            logger.warning("event lost: schedule=%s reason=%s: %s", schedule.key, event.reason, error)

    async def write_status(self, key: RunKey, resource_version: str, status: FineTuneScheduleStatus) -> str:
        """Write the whole status; refused as stale when the schedule changed since it was read."""
        path = f"{objects(key.namespace, PLURAL)}/{key.name}"
        return await self._server.apply_status(path, KIND, key.name, resource_version, status.to_wire())
