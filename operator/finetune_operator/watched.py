"""What events and resyncs say about runs, turned into keys in the queue. Must not know kopf or the cluster.

Also notices runs that vanished while nobody watched: after an outage a relist brings no deletion. And it knows for how
long a change is known that no event has told of.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from finetune_operator import reading
from finetune_operator.api_group import ALL_NAMESPACES
from finetune_operator.census import Census
from finetune_operator.children import Children, may_begin, version_of
from finetune_operator.observed import RunKey

logger = logging.getLogger(__name__)

Json = Mapping[str, Any]
Versions = Mapping[RunKey, set[str]]
"""Of the Jobs, or the pods, of each run that go on."""


class KeyQueue(Protocol):
    """The part of the queue that is needed here."""

    def add(self, key: RunKey) -> None: ...
    def add_after(self, key: RunKey, seconds: float) -> None: ...
    def expects(self, key: RunKey) -> bool: ...
    def forget(self, key: RunKey) -> None: ...


class RunMemory(Protocol):
    """What is remembered of runs to which nothing happened."""

    def children(self, key: RunKey) -> Children | None: ...
    def version(self, key: RunKey) -> str: ...
    def __iter__(self) -> Iterator[RunKey]: ...
    def forget(self, key: RunKey) -> None: ...


class WatchedRuns:
    """The runs that are known, and which Deployments each rolls out to."""

    def __init__(
        self,
        queue: KeyQueue,
        memory: RunMemory,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._memory = memory
        self._chance = chance
        self._monotonic = monotonic
        self._targets: dict[RunKey, tuple[str, ...]] = {}
        self.census = Census()
        self._heard_at = monotonic()
        """When the last event came."""
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
        self._strays: dict[RunKey, set[str]] = {}
        """Ended runs: versions of the Jobs that a list showed to go on, and for which each was looked at."""

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
        self._heard_at = self._monotonic()
        key = reading.run_key(body)
        self._told[key] = version_of(body)
        self._untold.pop(key, None)
        wakers = reading.wakers(body)
        known, self._wakers[key] = self._wakers.get(key), wakers
        self._look_at(key, body, wake=known != wakers)

    def _look_at(self, key: RunKey, body: Json, *, wake: bool = True) -> None:
        self.census.seen(key, body)
        if not reading.is_settled(body):
            self._kept.pop(key, None)
            self._targets[key] = reading.targets_of(body)
            if wake:
                self._news(key, version_of(body))
            return
        kept = reading.kept_target_uids(body)
        self._targets[key] = tuple(kept)
        first = key not in self._kept
        self._kept[key] = kept
        self._memory.forget(key)
        lost = any(self._uids.get((key.namespace, name), uid) != uid for name, uid in kept.items())
        if first and lost:
            self._news(key)

    def _news(self, key: RunKey, version: str = "") -> None:
        """Something happened: what was read before is worth nothing, unless the run was read in that very version."""
        if not version or self._memory.version(key) != version:
            self._memory.forget(key)
        self._queue.add(key)

    def run_gone(self, key: RunKey) -> None:
        """A run was deleted; what it owned goes by its ownerReferences."""
        if self._targets.pop(key, None) is not None:
            logger.info("run gone: run=%s", key)
        self.census.gone(key)
        self._kept.pop(key, None)
        self._told.pop(key, None)
        self._wakers.pop(key, None)
        self._untold.pop(key, None)
        self._strays.pop(key, None)
        self._memory.forget(key)
        self._queue.forget(key)

    def job_changed(self, body: Json, *, gone: bool = False) -> None:
        """A Job of a run changed.

        Of an ended run only one that goes on is worth a look: it was asked for before the end, and made after it.
        """
        self._heard_at = self._monotonic()
        key = reading.owning_run(body)
        if key is None or self._is_known(key, body, gone=gone):
            return
        if self._is_under_way(key) or (not gone and may_begin(body)):
            self._news(key)

    def pod_changed(self, body: Json, *, gone: bool = False) -> None:
        """A pod of a Job changed. What its Job needs is told by the Job, once the run has ended."""
        self._heard_at = self._monotonic()
        key = reading.owning_run(body)
        if key is not None and self._is_under_way(key) and not self._is_known(key, body, gone=gone):
            self._news(key)

    def _is_under_way(self, key: RunKey) -> bool:
        return key in self._targets and key not in self._kept

    def _is_known(self, key: RunKey, child: Json, *, gone: bool) -> bool:
        """A look has read it already."""
        known = self._memory.children(key)
        return not gone and known is not None and version_of(child) in known.versions

    def deployment_changed(self, namespace: str, name: str, uid: str = "") -> None:
        """A Deployment changed, or is gone when it has no uid; perhaps it is some run's target.

        An ended run is only told of one made anew.
        """
        self._heard_at = self._monotonic()
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
                self._news(key)

    def listed_run(self, body: Json, within_seconds: float = 0.0) -> RunKey:
        """A list shows a run: it is looked at where no event has told of it, and where nobody would look otherwise."""
        key = reading.run_key(body)
        if self._told.get(key) == version_of(body):
            self._untold.pop(key, None)
            self._look_at(key, body, wake=False)
            if key not in self._kept and not self._queue.expects(key):
                self._queue.add_after(key, within_seconds * self._chance())
        else:
            self._untold.setdefault(key, self._monotonic())
            self._wakers[key] = reading.wakers(body)
            self._look_at(key, body)
        return key

    def not_listed(self, namespace: str, seen: set[RunKey]) -> None:
        """The list is whole: a run that is missing is gone."""
        within = [key for key in self._targets if namespace in (ALL_NAMESPACES, key.namespace)]
        for key in [key for key in within if key not in seen]:
            self.run_gone(key)

    def listed_children(self, namespace: str, jobs: Versions, pods: Versions) -> None:
        """What goes on of each run, from a list. Where it is not what was read last, an event was lost."""
        none: set[str] = set()
        for key in [key for key in self._memory if namespace in (ALL_NAMESPACES, key.namespace)]:
            known = self._memory.children(key)
            if known is not None and known.open_versions != jobs.get(key, none) | pods.get(key, none):
                self._news(key)
        for key, going_on in jobs.items():
            if key in self._kept and self._strays.get(key) != going_on:
                self._strays[key] = going_on
                self._news(key)

    def silent_seconds(self) -> float:
        """For how long a list has shown a change that no event has told of; 0 when events tell of all."""
        return self._monotonic() - min(self._untold.values()) if self._untold else 0.0

    def event_age_seconds(self) -> float:
        """How long ago the last event of any kind came; long where nothing happens."""
        return self._monotonic() - self._heard_at

    def expect_events(self) -> None:
        """The watch was begun anew: its silence counts from now."""
        self._untold = dict.fromkeys(self._untold, self._monotonic())
