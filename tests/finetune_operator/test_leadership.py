"""The Lease: one holder, judged by each replica's own clock."""

from __future__ import annotations

import asyncio
import copy
import time
from typing import Any

import pytest

from finetune_operator.errors import ClusterUnavailable, LeadershipLost, StaleObject
from finetune_operator.leadership import Leadership
from tests.finetune_operator.samples import NOON


class FakeLeases:
    """One Lease with a resourceVersion."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False

    async def read_lease(self, namespace: str, name: str) -> dict[str, Any] | None:
        if self.down:
            raise ClusterUnavailable("no answer")
        return copy.deepcopy(self.lease)

    async def create_lease(self, namespace: str, body: dict[str, Any]) -> None:
        if self.lease is not None:
            raise StaleObject("exists")
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = "1"

    async def replace_lease(self, namespace: str, name: str, body: dict[str, Any]) -> None:
        if self.down:
            raise ClusterUnavailable("no answer")
        assert self.lease is not None
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise StaleObject("changed")
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(int(body["metadata"]["resourceVersion"]) + 1)


class Replicas:
    """Two replicas and a clock that tests turn."""

    def __init__(self) -> None:
        self.leases = FakeLeases()
        self.seconds = 0.0
        self.first, self.second = (
            Leadership(self.leases, "op", "lease", name, monotonic=lambda: self.seconds, clock=lambda: NOON)
            for name in ("first", "second")
        )


@pytest.fixture
def replicas() -> Replicas:
    return Replicas()


async def test_only_one_of_two_replicas_gets_the_lease(replicas):
    assert await replicas.first.step()
    assert not await replicas.second.step()


async def test_a_replica_that_died_is_followed_after_the_leases_duration(replicas):
    await replicas.first.step()
    await replicas.second.step()

    replicas.seconds = 14
    assert not await replicas.second.step()
    replicas.seconds = 16
    assert await replicas.second.step()
    assert replicas.leases.lease["spec"]["leaseTransitions"] == 1


async def test_a_renewing_holder_is_never_followed(replicas):
    for second in range(0, 60, 2):
        replicas.seconds = float(second)
        assert await replicas.first.step()
        assert not await replicas.second.step()


async def test_a_released_lease_is_taken_at_once(replicas):
    await replicas.first.step()
    await replicas.second.step()

    await replicas.first.release()

    assert await replicas.second.step()
    assert not replicas.first.held


async def test_a_holder_that_sees_another_name_in_the_lease_stops(replicas, monkeypatch):
    async def no_wait(seconds: float) -> None:
        replicas.leases.lease["spec"]["holderIdentity"] = "second"

    await replicas.first.step()
    monkeypatch.setattr("finetune_operator.leadership.asyncio.sleep", no_wait)

    with pytest.raises(LeadershipLost, match="another replica"):
        await replicas.first.keep()
    assert not replicas.first.held


async def test_a_holder_that_cannot_renew_stops_before_the_others_may_start(replicas, monkeypatch):
    async def two_seconds(seconds: float) -> None:
        replicas.seconds += seconds

    await replicas.first.step()
    replicas.leases.down = True
    monkeypatch.setattr("finetune_operator.leadership.asyncio.sleep", two_seconds)

    with pytest.raises(LeadershipLost, match="could not be renewed"):
        await replicas.first.keep()
    assert 10 < replicas.seconds < 15


async def test_a_holder_whose_api_server_hangs_stops_before_the_others_may_start(monkeypatch):
    class HangingLeases(FakeLeases):
        async def read_lease(self, namespace: str, name: str) -> dict[str, Any] | None:
            if self.down:
                await asyncio.Event().wait()
            return await super().read_lease(namespace, name)

    leases = HangingLeases()
    holder = Leadership(leases, "op", "lease", "first", monotonic=time.monotonic, clock=lambda: NOON)
    await holder.step()
    leases.down = True
    monkeypatch.setattr("finetune_operator.leadership.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("finetune_operator.leadership.RENEW_WITHIN_SECONDS", 0.1)

    with pytest.raises(LeadershipLost, match="could not be renewed"):
        await asyncio.wait_for(holder.keep(), 2)
    assert not holder.held
