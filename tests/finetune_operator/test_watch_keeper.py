"""A watch that went silent is noticed and begun anew; one that ends by itself ends the keeper."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from finetune_operator.watch_keeper import WatchKeeper


class Ears:
    """What was heard: tests set for how long nothing was."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.expected = 0

    def silent_seconds(self) -> float:
        return self.seconds

    def expect_events(self) -> None:
        self.expected += 1


class Watches:
    """Counts the watches that were begun and that were told to stop."""

    def __init__(self, deaf_to_stop: bool = False) -> None:
        self.begun, self.stopped, self.deaf = 0, 0, deaf_to_stop
        self.error: Exception | None = None
        self.end = asyncio.Event()

    async def watch(self, started: asyncio.Event, stop: asyncio.Event) -> None:
        self.begun += 1
        started.set()
        waits = [asyncio.ensure_future(self.end.wait()), asyncio.ensure_future(stop.wait())]
        try:
            await asyncio.wait(waits[:1] if self.deaf else waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self.stopped += stop.is_set()
        if self.error:
            raise self.error


async def quiet() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def kept(watches: Watches, ears: Ears) -> AsyncIterator[tuple[WatchKeeper, asyncio.Task[None]]]:
    keeper = WatchKeeper(watches.watch, ears, lambda: None)
    task = asyncio.create_task(keeper.run())
    await quiet()
    try:
        yield keeper, task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_silent_watch_is_ended_and_begun_anew():
    watches, ears = Watches(), Ears()
    async with kept(watches, ears) as (keeper, _):
        ears.seconds = 31
        keeper.check()
        await quiet()

        assert (watches.begun, watches.stopped, keeper.restarts) == (2, 1, 1)
        assert ears.expected == 1


async def test_a_watch_that_is_only_late_is_left_alone():
    watches, ears = Watches(), Ears()
    async with kept(watches, ears) as (keeper, _):
        ears.seconds = 29
        keeper.check()
        await quiet()

        assert watches.begun == 1


async def test_a_watch_that_does_not_stop_when_told_is_cancelled(monkeypatch):
    monkeypatch.setattr("finetune_operator.watch_keeper.STOP_SECONDS", 0.0)
    watches, ears = Watches(deaf_to_stop=True), Ears()
    async with kept(watches, ears) as (keeper, _):
        ears.seconds = 31
        keeper.check()
        await asyncio.sleep(0.01)
        await quiet()

        assert watches.begun == 2


async def test_restarts_in_vain_are_told_to_the_probe_and_one_event_takes_that_back():
    watches, ears = Watches(), Ears()
    async with kept(watches, ears) as (keeper, _):
        ears.seconds = 31
        for _ in range(3):
            assert keeper.problem() == ""
            keeper.check()
            await quiet()
        told = keeper.problem()
        ears.seconds = 0
        keeper.check()

        assert "begun anew 3 times" in told
        assert keeper.problem() == ""


async def test_a_watch_that_ends_by_itself_ends_the_keeper_with_its_error():
    watches, ears = Watches(), Ears()
    async with kept(watches, ears) as (_, task):
        watches.error = RuntimeError("forbidden")
        watches.end.set()

        with pytest.raises(RuntimeError, match="forbidden"):
            await asyncio.wait_for(task, 5)


async def test_a_keeper_that_is_cancelled_takes_its_watch_with_it():
    watches, ears = Watches(), Ears()
    async with kept(watches, ears):
        pass

    await quiet()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
