"""Which of several replicas acts: a Lease that is renewed, and given up at once when that fails.

Expiry is judged by how long this process has seen an unchanged record on its own monotonic clock, so the
clocks of the replicas need not agree. Must not know what the leader does.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from finetune_operator.errors import LeadershipLost, OperatorError, StaleObject

logger = logging.getLogger(__name__)

DURATION_SECONDS = 15
RENEW_WITHIN_SECONDS = 10.0
"""Without a renewal for this long the leader stops: before the others may start."""
RETRY_SECONDS = 2.0

Json = dict[str, Any]


class LeaseStore(Protocol):
    """Where the Lease lies."""

    async def read_lease(self, namespace: str, name: str) -> Json | None: ...
    async def create_lease(self, namespace: str, body: Json) -> None: ...
    async def replace_lease(self, namespace: str, name: str, body: Json) -> None: ...


class Leadership:
    """One replica's claim to the Lease."""

    def __init__(
        self,
        store: LeaseStore,
        namespace: str,
        name: str,
        identity: str,
        *,
        monotonic: Callable[[], float],
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._monotonic = monotonic
        self._clock = clock
        self._seen: tuple[object, ...] | None = None
        self._seen_at = 0.0
        self._renewed_at: float | None = None
        self.held = False
        self.last_answer_at: float | None = None
        """When the Lease could last be read or written (monotonic)."""

    async def acquire(self) -> None:
        """Wait until this replica holds the Lease."""
        logger.info("waiting for the lease: identity=%s", self._identity)
        while not await self._try():
            await asyncio.sleep(RETRY_SECONDS)
        logger.info("lease held: identity=%s", self._identity)

    async def keep(self) -> None:
        """Renew for ever.

        Raises:
            LeadershipLost: another replica holds it, or it could not be renewed in time.
        """
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            if await self._try_in_time():
                continue
            if self.held is False:
                raise LeadershipLost("another replica holds the lease")
            if self._renewed_at is None or self._monotonic() - self._renewed_at > RENEW_WITHIN_SECONDS:
                self.held = False
                raise LeadershipLost(f"the lease could not be renewed for {RENEW_WITHIN_SECONDS:.0f} s")

    async def release(self) -> None:
        """Hand the Lease to whoever asks next; a failure only makes the others wait for its expiry."""
        if not self.held:
            return
        self.held = False
        try:
            lease = await self._store.read_lease(self._namespace, self._name)
            if lease is None or lease["spec"].get("holderIdentity") != self._identity:
                return
            lease["spec"].update(holderIdentity="", leaseDurationSeconds=1, renewTime=self._time())
            await self._store.replace_lease(self._namespace, self._name, lease)
            logger.info("lease released: identity=%s", self._identity)
        except OperatorError as error:
            logger.warning("lease not released: %s", error)

    async def _try_in_time(self) -> bool:
        """One attempt to renew, given up when an answer would come too late to act on."""
        left = RENEW_WITHIN_SECONDS - (self._monotonic() - (self._renewed_at or 0.0))
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await self._try()
        except TimeoutError:
            logger.warning("lease: the API server does not answer in time")
            return False

    async def _try(self) -> bool:
        """One attempt to take or renew; a failing API server is logged and means no."""
        try:
            return await self.step()
        except StaleObject:
            return False
        except OperatorError as error:
            logger.warning("lease: %s", error)
            return False

    async def step(self) -> bool:
        """Look at the Lease and take or renew it when that is our right.

        Returns:
            Whether this replica holds it now.
        """
        began = self._monotonic()
        lease = await self._store.read_lease(self._namespace, self._name)
        self.last_answer_at = self._monotonic()
        if lease is None:
            await self._store.create_lease(self._namespace, self._new())
            return self._took(began)
        spec = lease.get("spec") or {}
        record = (spec.get("holderIdentity"), spec.get("renewTime"), lease["metadata"].get("resourceVersion"))
        if record != self._seen:
            self._seen, self._seen_at = record, self._monotonic()
        holder = spec.get("holderIdentity") or ""
        mine = holder == self._identity
        duration = float(spec.get("leaseDurationSeconds") or DURATION_SECONDS)
        if holder and not mine and self._monotonic() - self._seen_at < duration:
            self.held = False
            return False
        taken = copy.deepcopy(lease)
        taken["spec"] = dict(
            spec, holderIdentity=self._identity, renewTime=self._time(), leaseDurationSeconds=DURATION_SECONDS
        )
        if not mine:
            transitions = int(spec.get("leaseTransitions") or 0) + 1
            taken["spec"].update(acquireTime=self._time(), leaseTransitions=transitions)
        await self._store.replace_lease(self._namespace, self._name, taken)
        return self._took(began)

    def _took(self, began: float) -> bool:
        self._renewed_at = began
        self.held = True
        return True

    def _new(self) -> Json:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": DURATION_SECONDS,
                "acquireTime": self._time(),
                "renewTime": self._time(),
                "leaseTransitions": 0,
            },
        }

    def _time(self) -> str:
        return self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
