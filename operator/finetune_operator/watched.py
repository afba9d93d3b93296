"""What events and resyncs say about runs, turned into keys in the queue. Must not know kopf or the cluster.

Also notices runs that vanished while nobody watched: after an outage a relist brings no deletion. And it knows for how
long a change is known that no event has told of.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
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
    """The runs that are known, and which Deployments each rolls out to."""

    def __init__(self, queue: KeyQueue, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._queue = queue
        self._monotonic = monotonic
        self._targets: dict[RunKey, tuple[str, ...]] = {}
        self._kept: dict[RunKey, dict[str, str]] = {}
        """Ended runs: uid by name of the targets that serve their model; empty when none does."""
        self._uids: dict[tuple[str, str], str] = {}
        """uid of each Deployment that is there, by namespace and name."""
        self._told: dict[RunKey, str] = {}
        """The version of each run that an event told of last."""
        self._wakers: dict[RunKey, tuple[object, ...]] = {}
        """What an event said of each run last, of that which is worth a look."""
        self._untold: dict[RunKey, float] = {}
        """Since when a list shows a version that no event has told of."""

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def deployments_known(self) -> int:
        """How many Deployments are remembered."""
        return len(self._uids)

    def run_changed(self, body: Json) -> None:
        """An event: a run was added or changed. Those that ended cost nothing.

        A pass that only wrote down what it saw would see the same again: its own words wake nobody.
        """
        key = reading.run_key(body)
        self._told[key] = _version(body)
        self._untold.pop(key, None)
        wakers = reading.wakers(body)
        known, self._wakers[key] = self._wakers.get(key), wakers
        self._look_at(key, body, wake=known != wakers)

    def _look_at(self, key: RunKey, body: Json, *, wake: bool = True) -> None:
        if not reading.is_settled(body):
            self._kept.pop(key, None)
            self._targets[key] = reading.targets_of(body)
            if wake:
                self._queue.add(key)
            return
        kept = reading.kept_target_uids(body)
        self._targets[key] = tuple(kept)
        first = key not in self._kept
        self._kept[key] = kept
        lost = any(self._uids.get((key.namespace, name), uid) != uid for name, uid in kept.items())
        if first and lost:
            self._queue.add(key)

    def run_gone(self, key: RunKey) -> None:
        """A run was deleted; what it owned goes by its ownerReferences."""
        if self._targets.pop(key, None) is not None:
            logger.info("run gone: run=%s", key)
        self._kept.pop(key, None)
        self._told.pop(key, None)
        self._wakers.pop(key, None)
        self._untold.pop(key, None)
        self._queue.forget(key)

    def child_changed(self, body: Json) -> None:
        """A Job or a pod of a stage changed."""
        key = reading.owning_run(body)
        if key is not None:
            self._queue.add(key)

    def deployment_changed(self, namespace: str, name: str, uid: str = "") -> None:
        """A Deployment changed, or is gone when it has no uid; perhaps it is some run's target.

        An ended run is only told of one made anew.
        """
        anew = bool(uid) and self._uids.get((namespace, name)) != uid
        if uid:
            self._uids[namespace, name] = uid
        else:
            self._uids.pop((namespace, name), None)
        for key, targets in self._targets.items():
            if name not in targets or key.namespace != namespace:
                continue
            kept = self._kept.get(key)
            if kept is None or (anew and kept.get(name) != uid):
                self._queue.add(key)

    def listed(self, namespace: str, bodies: Iterable[Json]) -> None:
        """All runs of a namespace, or of every one: each is looked at again, and those that are missing are gone."""
        seen: set[RunKey] = set()
        for body in bodies:
            key = reading.run_key(body)
            seen.add(key)
            if self._told.get(key) == _version(body):
                self._untold.pop(key, None)
            else:
                self._untold.setdefault(key, self._monotonic())
            self._look_at(key, body)
        within = [key for key in self._targets if namespace in (ALL_NAMESPACES, key.namespace)]
        for key in [key for key in within if key not in seen]:
            self.run_gone(key)

    def silent_seconds(self) -> float:
        """For how long a list has shown a change that no event has told of; 0 when events tell of all."""
        return self._monotonic() - min(self._untold.values()) if self._untold else 0.0

    def expect_events(self) -> None:
        """The watch was begun anew: its silence counts from now."""
        self._untold = dict.fromkeys(self._untold, self._monotonic())


def _version(body: Json) -> str:
    return str(body["metadata"].get("resourceVersion") or "")
