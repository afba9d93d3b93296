"""What events and resyncs say about runs, turned into keys in the queue. Must not know kopf or the cluster.

Also notices runs that vanished while nobody watched: after an outage a relist brings no deletion.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from finetune_operator import reading
from finetune_operator.api_group import ALL_NAMESPACES
from finetune_operator.observed import RunKey

logger = logging.getLogger(__name__)

Json = Mapping[str, Any]


class KeyQueue(Protocol):
    """The part of the queue that is needed here."""

    def add(self, key: RunKey) -> None: ...
    def forget(self, key: RunKey) -> None: ...


class WatchedRuns:
    """The runs that are known, and which Deployment each rolls out to."""

    def __init__(self, queue: KeyQueue) -> None:
        self._queue = queue
        self._targets: dict[RunKey, str] = {}

    def __len__(self) -> int:
        return len(self._targets)

    def run_changed(self, body: Json) -> None:
        """A run was added, changed or listed. Those that ended cost nothing."""
        key = reading.run_key(body)
        self._targets[key] = "" if reading.is_settled(body) else reading.target_of(body)
        if not reading.is_settled(body):
            self._queue.add(key)

    def run_gone(self, key: RunKey) -> None:
        """A run was deleted; what it owned goes by its ownerReferences."""
        if self._targets.pop(key, None) is not None:
            logger.info("run gone: run=%s", key)
        self._queue.forget(key)

    def child_changed(self, body: Json) -> None:
        """A Job or a pod of a stage changed."""
        key = reading.owning_run(body)
        if key is not None:
            self._queue.add(key)

    def deployment_changed(self, namespace: str, name: str) -> None:
        """A Deployment changed; perhaps it is some run's target."""
        for key, target in self._targets.items():
            if target == name and key.namespace == namespace:
                self._queue.add(key)

    def listed(self, namespace: str, bodies: Iterable[Json]) -> None:
        """All runs of a namespace, or of every one: each is looked at again, and those that are missing are gone."""
        seen: set[RunKey] = set()
        for body in bodies:
            seen.add(reading.run_key(body))
            self.run_changed(body)
        within = [key for key in self._targets if namespace in (ALL_NAMESPACES, key.namespace)]
        for key in [key for key in within if key not in seen]:
            self.run_gone(key)
