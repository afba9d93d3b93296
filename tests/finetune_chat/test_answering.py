from __future__ import annotations

import asyncio

import httpx
import pytest

from finetune_chat.answering.answering import (
    Answering,
    Delta,
    Done,
    Event,
    Queued,
    Sources,
    Turn,
    prompt_messages,
)
from finetune_chat.answering.errors import ModelUnavailable, QueueFull
from finetune_chat.answering.model_server import ModelServer
from finetune_contract.prompt import REFUSAL, user_message
from tests.finetune_chat.parts import API, MODEL_ID, TICKETS, FakeIndex, FakeModel, an_answering

QUESTION = "What does an adult pay in winter?"


async def events_of(
    answering: Answering, question: str = QUESTION, history: tuple[Turn, ...] = ()
) -> list[Event]:
    retrieved = await answering.retrieve(question, history)
    return [event async for event in answering.answer(question, history, retrieved)]


def words_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_an_answer_comes_with_its_sources_and_the_model_that_wrote_it(model: FakeModel) -> None:
    events = await events_of(an_answering(model))

    assert isinstance(events[0], Sources)
    assert events[0].cited
    assert events[0].links[0].url == TICKETS.url
    assert words_of(events) == "Adults pay £7.40 [1]."
    assert isinstance(events[-1], Done)
    assert (events[-1].model, events[-1].finish_reason, events[-1].refused) == (MODEL_ID, "stop", False)


async def test_words_may_hold_any_line_separator() -> None:
    model = FakeModel("Adults pay\u2028", "£7.40\x85[1].")

    assert words_of(await events_of(an_answering(model))) == "Adults pay\u2028£7.40\x85[1]."


async def test_the_model_is_asked_in_the_form_that_was_taught(model: FakeModel) -> None:
    answering = an_answering(model)
    retrieved = await answering.retrieve(QUESTION, [])

    await events_of(answering)

    assert model.bodies[0]["messages"] == [
        {"role": "user", "content": user_message(QUESTION, retrieved.passages)}
    ]
    assert (model.bodies[0]["temperature"], model.bodies[0]["max_tokens"]) == (0, 160)


async def test_the_last_two_turns_are_sent_along(model: FakeModel) -> None:
    answering = an_answering(model)
    history = [Turn(f"question {number}", f"answer {number}") for number in range(4)]

    messages = prompt_messages(QUESTION, history, await answering.retrieve(QUESTION, []))

    assert [message.content for message in messages[:-1]] == [
        "question 2",
        "answer 2",
        "question 3",
        "answer 3",
    ]
    assert [message.role for message in messages] == ["user", "assistant", "user", "assistant", "user"]


async def test_what_the_site_does_not_know_is_refused_without_asking_the_model(model: FakeModel) -> None:
    answering = an_answering(model)

    events = await events_of(answering, "Is there a swimming pool?")

    assert words_of(events) == REFUSAL
    assert isinstance(events[-1], Done)
    assert events[-1].refused
    assert (model.bodies, model.identity_requests) == ([], 0)


async def test_a_refusal_by_the_model_itself_is_known_as_one() -> None:
    events = await events_of(an_answering(FakeModel("I could not find ", "that on this site.")))

    assert isinstance(events[-1], Done)
    assert events[-1].refused


@pytest.mark.parametrize("fault", ["down", "no model", "refuses", "breaks off"])
async def test_without_a_model_the_pages_are_still_shown(fault: str, model: FakeModel) -> None:
    match fault:
        case "down":
            model.down = True
        case "no model":
            model.model_id = ""
        case "refuses":
            model.status = 500
        case _:
            model.breaks_off = True
    answering = an_answering(model)

    events = await events_of(answering)

    assert isinstance(events[0], Sources)
    assert events[0].links
    assert isinstance(events[-1], Done)
    assert (events[-1].degraded, events[-1].finish_reason) == (True, "degraded")
    assert answering.queue.running == 0


async def test_a_reader_who_goes_away_frees_slot_and_model(model: FakeModel) -> None:
    answering = an_answering(model, slots=1)
    events = answering.answer(QUESTION, [], await answering.retrieve(QUESTION, []))
    await anext(events)
    await anext(events)
    assert answering.queue.running == 1

    await events.aclose()

    assert answering.queue.running == 0
    assert model.closed_streams == 1


async def test_a_cancelled_request_frees_slot_and_model(model: FakeModel) -> None:
    stuck = asyncio.Event()
    model.before_piece = stuck.wait
    answering = an_answering(model, slots=1)
    task = asyncio.create_task(events_of(answering))
    while not model.bodies:
        await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert answering.queue.running == 0
    assert model.closed_streams == 1


async def test_readers_wait_their_turn_and_see_their_place(model: FakeModel) -> None:
    gate = asyncio.Event()
    model.before_piece = gate.wait
    answering = an_answering(model, slots=1, waiting=1)
    first = asyncio.create_task(events_of(answering))
    while not model.bodies:
        await asyncio.sleep(0)
    second = asyncio.create_task(events_of(answering))
    while not answering.queue.waiting:
        await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await events_of(answering)

    gate.set()

    assert words_of(await first) == "Adults pay £7.40 [1]."
    events = await second
    assert events[0] == Queued(1)
    assert words_of(events) == "Adults pay £7.40 [1]."


async def test_invented_addresses_do_not_reach_the_reader() -> None:
    model = FakeModel("See https://", "evil.example/", "x or [API](https://mill.example/api/) ", "[7]")

    events = await events_of(an_answering(model, FakeIndex(API)), "On which port does the API listen?")

    assert words_of(events).split() == ["See", "or", "API", "[1]"]


async def test_ready_means_that_the_model_has_written_a_token(model: FakeModel) -> None:
    answering = an_answering(model)

    assert await answering.readiness("") == (MODEL_ID, "")
    assert await answering.readiness("") == (MODEL_ID, "")
    assert [body["max_tokens"] for body in model.bodies] == [1]


async def test_another_model_than_expected_is_not_ready(model: FakeModel) -> None:
    served, reason = await an_answering(model).readiness("sha256:other")

    assert served is None
    assert reason == f"the model server serves {MODEL_ID}, expected sha256:other"


async def test_no_model_yet_is_ready_and_says_so(model: FakeModel) -> None:
    model.model_id = ""

    assert await an_answering(model).readiness("") == ("", "")


@pytest.mark.parametrize("fault", ["down", "cannot write"])
async def test_a_model_that_does_not_work_is_not_ready(fault: str, model: FakeModel) -> None:
    model.down = fault == "down"
    model.status = 500
    answering = an_answering(model)

    served, reason = await answering.readiness("")

    assert served is None
    assert "model server" in reason
    model.down, model.status = False, 200
    assert await answering.readiness("") == (MODEL_ID, "")


async def test_a_slow_first_token_is_waited_for_by_the_next_probe(
    model: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_chat.answering.model_server.WARM_UP_PATIENCE_SECONDS", 0.01)
    slow = asyncio.Event()
    model.before_piece = slow.wait
    answering = an_answering(model)

    assert (await answering.readiness(""))[1] == "the model is loaded and has not yet written its first token"
    slow.set()
    for _ in range(20):
        await asyncio.sleep(0)

    assert await answering.readiness("") == (MODEL_ID, "")
    assert len(model.bodies) == 1


async def test_a_busy_model_stays_ready_for_a_while_and_a_dead_one_does_not(model: FakeModel) -> None:
    now = 0.0
    server = ModelServer("http://model", 5.0, httpx.MockTransport(model.handle), clock=lambda: now)
    assert await server.model_id() == MODEL_ID
    model.busy = True
    now = 50.0

    assert await server.model_id() == MODEL_ID

    now = 70.0
    with pytest.raises(ModelUnavailable, match="ReadTimeout"):
        await server.model_id()
    model.busy, model.down = False, True
    with pytest.raises(ModelUnavailable, match="ConnectError"):
        await server.model_id()
