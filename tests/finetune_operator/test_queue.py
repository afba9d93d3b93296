"""The queue: one worker a key, no key twice, delays and backoff."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from finetune_operator.errors import ClusterUnavailable
from finetune_operator.observed import RunKey
from finetune_operator.outlook import Unhurried
from finetune_operator.queue import FAULT, Ended, Work, WorkQueue

A, B, C = RunKey("demo", "a"), RunKey("demo", "b"), RunKey("demo", "c")


@contextlib.asynccontextmanager
async def running(
    work: Work, concurrency: int = 4, ended: Ended = lambda seconds, failure: None
) -> AsyncIterator[WorkQueue]:
    queue = WorkQueue(work, concurrency=concurrency, chance=lambda: 0.0, ended=ended)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.wait([task])


async def quiet() -> None:
    """Let everything that can run now run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_key_added_many_times_is_worked_on_once():
    seen: list[RunKey] = []

    async def work(key: RunKey) -> None:
        seen.append(key)

    async with running(work) as queue:
        for _ in range(5):
            queue.add(A)
        queue.add(B)
        await quiet()

    assert sorted(seen, key=str) == [A, B]


async def test_a_key_is_never_worked_on_twice_at_once_but_again_when_it_was_added_meanwhile():
    gate, active, most, passes = asyncio.Event(), 0, 0, 0

    async def work(key: RunKey) -> None:
        nonlocal active, most, passes
        active, passes = active + 1, passes + 1
        most = max(most, active)
        await gate.wait()
        active -= 1

    async with running(work) as queue:
        queue.add(A)
        await quiet()
        queue.add(A)
        queue.add(A)
        await quiet()
        gate.set()
        await quiet()

    assert (most, passes) == (1, 2)


async def test_no_more_keys_than_workers_are_worked_on_at_once():
    gate, active, most = asyncio.Event(), 0, 0

    async def work(key: RunKey) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await gate.wait()
        active -= 1

    async with running(work, concurrency=2) as queue:
        for number in range(5):
            queue.add(RunKey("demo", str(number)))
        await quiet()
        gate.set()
        await quiet()

    assert most == 2


async def test_a_pass_that_asks_for_a_later_look_gets_it():
    seen: list[RunKey] = []
    done = asyncio.Event()

    async def work(key: RunKey) -> float | None:
        seen.append(key)
        if len(seen) == 3:
            done.set()
            return None
        return 0.001

    async with running(work) as queue:
        queue.add(A)
        await asyncio.wait_for(done.wait(), 5)
        await quiet()

    assert seen == [A, A, A]


async def test_failures_back_off_further_each_time_and_success_forgets_them():
    queue = WorkQueue(lambda key: asyncio.sleep(0, None), concurrency=1, chance=lambda: 0.5)

    waits = [queue._backoff(A) for _ in range(9)]

    assert waits[:3] == [0.55, 1.1, 2.2]
    assert waits[-1] == 66.0
    assert queue._backoff(B) == 0.55


async def test_a_failing_pass_is_tried_again_and_others_are_not_held_up():
    seen: list[RunKey] = []

    async def work(key: RunKey) -> None:
        seen.append(key)
        if key == A:
            raise ClusterUnavailable("no answer")

    async with running(work) as queue:
        queue.add(A)
        queue.add(B)
        await quiet()
        queue.add(A)
        await quiet()

    assert seen == [A, B, A]


async def test_each_pass_is_told_with_what_it_failed_by():
    told: list[str] = []

    async def work(key: RunKey) -> None:
        if key == A:
            raise ClusterUnavailable("no answer")
        if key == B:
            raise ZeroDivisionError

    async with running(work, concurrency=1, ended=lambda seconds, failure: told.append(failure)) as queue:
        for key in (A, B, C):
            queue.add(key)
        await quiet()

    assert told == ["ClusterUnavailable", FAULT, ""]


async def test_a_fault_of_the_operator_in_one_run_leaves_the_others_served(caplog):
    seen: list[RunKey] = []

    async def work(key: RunKey) -> None:
        seen.append(key)
        if key == A:
            raise KeyError("a bug")

    async with running(work) as queue:
        queue.add(A)
        queue.add(B)
        await quiet()

    assert seen == [A, B]
    assert "fault of the operator" in caplog.text


async def test_an_event_ends_a_delay():
    seen: list[RunKey] = []

    async def work(key: RunKey) -> float:
        seen.append(key)
        return 3600.0

    async with running(work) as queue:
        queue.add(A)
        await quiet()
        queue.add(A)
        await quiet()
        queue.forget(A)

    assert seen == [A, A]


async def test_a_key_is_expected_while_it_waits_is_worked_on_or_has_its_time():
    gate, steps = asyncio.Event(), []

    async def work(key: RunKey) -> float | None:
        await gate.wait()
        return 3600.0 if len(steps) == 2 else None

    async with running(work) as queue:
        steps.append(queue.expects(A))
        queue.add(A)
        steps.append(queue.expects(A))
        await quiet()
        assert queue.expects(A), "worked on"
        gate.set()
        await quiet()
        assert queue.expects(A), "later"
        queue.forget(A)
        assert not queue.expects(A)

    assert steps == [False, True]


def idle_until(gate: asyncio.Event) -> tuple[Work, list[str]]:
    """Work that lasts, for keys whose names say so, until the gate opens; and the names in the order of beginning."""
    begun: list[str] = []

    async def work(key: RunKey) -> float | None:
        begun.append(key.name)
        if key.name.startswith("idle"):
            await gate.wait()
        return None

    return work, begun


async def test_looks_in_no_hurry_give_way_and_hold_half_of_the_workers_at_most():
    gate = asyncio.Event()
    work, begun = idle_until(gate)

    async with running(work, concurrency=4) as queue:
        for number in range(4):
            queue.add_after(RunKey("demo", f"idle-{number}"), Unhurried(0.001))
        await asyncio.sleep(0.01)
        await quiet()
        assert (queue.working, queue.depth) == (2, 2)

        queue.add(A)
        queue.add_after(B, 0.001)
        await asyncio.sleep(0.01)
        await quiet()
        assert begun == ["idle-0", "idle-1", "a", "b"]
        gate.set()
        await quiet()

    assert begun[4:] == ["idle-2", "idle-3"]


async def test_an_event_lifts_a_look_that_was_in_no_hurry_and_it_happens_once():
    gate = asyncio.Event()
    work, begun = idle_until(gate)

    async with running(work, concurrency=2) as queue:
        queue.add_after(RunKey("demo", "idle"), Unhurried(0.001))
        queue.add_after(A, Unhurried(0.002))
        await asyncio.sleep(0.02)
        await quiet()
        assert (begun, queue.depth) == (["idle"], 1)

        queue.add(A)
        await quiet()
        assert (begun, queue.depth) == (["idle", "a"], 0)
        gate.set()
        await quiet()

    assert begun == ["idle", "a"]


async def test_one_worker_alone_does_both():
    begun: list[RunKey] = []

    async def work(key: RunKey) -> None:
        begun.append(key)

    async with running(work, concurrency=1) as queue:
        queue.add_after(A, Unhurried(0.001))
        await asyncio.sleep(0.01)
        await quiet()

    assert begun == [A]
