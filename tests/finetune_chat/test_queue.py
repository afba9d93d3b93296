from __future__ import annotations

import asyncio

import pytest

from finetune_chat.answering import queue as queue_module
from finetune_chat.answering.errors import QueueFull
from finetune_chat.answering.queue import AnswerQueue, Ticket


async def positions_of(ticket: Ticket) -> list[int]:
    return [position async for position in ticket.positions()]


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_free_slot_is_taken_at_once() -> None:
    queue = AnswerQueue(slots=1, waiting=0)

    ticket = queue.enter()

    assert await positions_of(ticket) == []
    assert (queue.running, queue.waiting) == (1, 0)


async def test_readers_move_up_in_the_order_in_which_they_came() -> None:
    queue = AnswerQueue(slots=1, waiting=2)
    first, second, third = queue.enter(), queue.enter(), queue.enter()
    waits = [asyncio.create_task(positions_of(ticket)) for ticket in (second, third)]
    await settle()

    first.give_back()
    await settle()
    second.give_back()

    assert await asyncio.gather(*waits) == [[1], [2, 1]]
    assert (queue.running, queue.waiting) == (1, 0)


async def test_a_reader_whose_turn_comes_while_the_position_is_told_waits_for_no_sign_of_life() -> None:
    queue = AnswerQueue(slots=1, waiting=1)
    first, second = queue.enter(), queue.enter()
    positions = second.positions()
    assert await anext(positions) == 1

    first.give_back()

    async with asyncio.timeout(queue_module.HEARTBEAT_SECONDS / 2):
        assert [position async for position in positions] == []


async def test_more_readers_than_can_wait_are_told_when_to_come_back() -> None:
    queue = AnswerQueue(slots=1, waiting=1)
    queue.enter()
    queue.enter()

    with pytest.raises(QueueFull) as caught:
        queue.enter()
    with pytest.raises(QueueFull):
        queue.require_room()

    assert caught.value.retry_after_seconds == 16


async def test_a_reader_who_leaves_the_queue_lets_the_others_move_up() -> None:
    queue = AnswerQueue(slots=1, waiting=2)
    running, leaving, last = queue.enter(), queue.enter(), queue.enter()

    leaving.give_back()
    leaving.give_back()

    assert last.position == 1
    running.give_back()
    assert (last.position, queue.running, queue.waiting) == (0, 1, 0)


async def test_a_long_wait_shows_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "HEARTBEAT_SECONDS", 0.001)
    queue = AnswerQueue(slots=1, waiting=1)
    queue.enter()
    seen = queue.enter().positions()

    assert [await anext(seen), await anext(seen), await anext(seen)] == [1, 1, 1]
    await seen.aclose()


def test_the_advice_follows_how_long_answers_take() -> None:
    queue = AnswerQueue(slots=1, waiting=0)
    queue.enter()
    for _ in range(50):
        queue.learn_duration(2.0)

    with pytest.raises(QueueFull) as caught:
        queue.require_room()

    assert caught.value.retry_after_seconds == 3
