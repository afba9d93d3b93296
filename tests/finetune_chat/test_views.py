from __future__ import annotations

import asyncio
import gc
import json
from typing import Any, cast

import pytest
from asgiref.testing import ApplicationCommunicator
from django.apps import apps
from django.core.asgi import get_asgi_application
from django.http import StreamingHttpResponse
from django.test import AsyncClient, Client

from finetune_chat.answering.answering import Answering
from finetune_chat.settings import ChatSettings
from finetune_contract.prompt import REFUSAL
from tests.finetune_chat.parts import MODEL_ID, TICKETS, FakeIndex, FakeModel, an_answering

QUESTION = "What does an adult pay in winter?"


@pytest.fixture
def site(model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> Answering:
    app = apps.get_app_config("finetune_chat")
    answering = an_answering(model)
    settings = ChatSettings.from_mapping(
        {"DOCUMENTS": "documents.jsonl", "SITE_NAME": "The <Mill>", "EXAMPLES": ["What does a ticket cost?"]}
    )
    monkeypatch.setitem(app.__dict__, "answering", answering)
    monkeypatch.setitem(app.__dict__, "chat_settings", settings)
    return answering


async def post(body: object, accept: str = "application/json") -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    return await AsyncClient().post(
        "/api/chat", data=text, content_type="application/json", headers={"Accept": accept}
    )


async def events(response: StreamingHttpResponse) -> list[tuple[str, dict[str, Any]]]:
    parts = [part async for part in cast("Any", response.streaming_content)]
    text = b"".join(parts).decode()
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.mark.usefixtures("site")
async def test_one_json_answer_has_words_links_and_the_model() -> None:
    response = await post({"question": QUESTION})

    body = response.json()
    assert response.status_code == 200
    assert body["answer"] == "Adults pay £7.40 [1]."
    assert body["sources"][0] == {"title": "Ticket prices: Winter ticket", "url": TICKETS.url}
    assert (body["model"], body["refused"], body["degraded"]) == (MODEL_ID, False, False)
    assert set(body) == {"answer", "sources", "model", "refused", "degraded", "seconds"}
    assert response["X-Model-Id"] == MODEL_ID


@pytest.mark.usefixtures("site")
async def test_an_answer_streams_as_events() -> None:
    response = await post({"question": QUESTION}, accept="text/event-stream")
    found = await events(response)

    assert response["Content-Type"] == "text/event-stream"
    assert (response["Cache-Control"], response["X-Accel-Buffering"]) == ("no-store", "no")
    assert response["X-Model-Id"] == MODEL_ID
    assert [name for name, _ in found][:2] == ["sources", "delta"]
    assert found[0][1]["cited"] is True
    assert "".join(data["text"] for name, data in found if name == "delta") == "Adults pay £7.40 [1]."
    name, done = found[-1]
    assert name == "done"
    assert (done["model"], done["finish_reason"]) == (MODEL_ID, "stop")


@pytest.mark.usefixtures("site")
async def test_what_the_site_does_not_know_is_refused_politely() -> None:
    body = (await post({"question": "Is there a swimming pool?"})).json()

    assert (body["answer"], body["refused"], body["model"]) == (REFUSAL, True, "")


@pytest.mark.usefixtures("site")
async def test_without_a_model_the_answer_is_a_list_of_pages(model: FakeModel) -> None:
    model.down = True

    body = (await post({"question": QUESTION})).json()

    assert (body["answer"], body["degraded"]) == ("", True)
    assert body["sources"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("not json", "Invalid JSON"),
        ({}, "question: Field required"),
        ({"question": "  "}, "question: String should have at least 1 character"),
        ({"question": "x" * 1001}, "question: String should have at most 1000 characters"),
        ({"question": "x", "system": "obey"}, "system: Extra inputs are not permitted"),
        ({"question": "x", "history": [{"role": "system"}]}, "history.0.question: Field required"),
        ({"question": "x", "padding": "x" * 70_000}, "longer than 65536 bytes"),
    ],
)
@pytest.mark.usefixtures("site")
async def test_a_bad_request_is_told_what_is_wrong(body: object, message: str) -> None:
    response = await post(body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_request"
    assert message in response.json()["error"]["message"]


async def test_a_full_queue_asks_to_come_back(site: Answering) -> None:
    for _ in range(10):
        site.queue.enter()

    response = await post({"question": QUESTION}, accept="text/event-stream")

    assert response.status_code == 429
    assert int(response["Retry-After"]) > 0
    assert response.json()["error"]["code"] == "busy"


async def test_a_search_that_is_down_is_said_without_inner_addresses(
    site: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "_index", FakeIndex(down=True))

    response = await post({"question": QUESTION})

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "search_unavailable"
    assert "weaviate" not in response.content.decode().lower()


@pytest.mark.usefixtures("site")
async def test_ready_names_the_model_that_is_served() -> None:
    response = await AsyncClient().get("/readyz")

    assert response.status_code == 200
    assert response.json() == {"model": MODEL_ID}


@pytest.mark.usefixtures("site")
async def test_not_ready_names_the_reason_while_alive_goes_on(model: FakeModel) -> None:
    model.down = True

    ready = await AsyncClient().get("/readyz")
    alive = await AsyncClient().get("/livez")

    assert ready.status_code == 503
    assert ready.json()["reason"] == "model server at http://model: ConnectError"
    assert alive.status_code == 200


@pytest.mark.usefixtures("site")
async def test_the_page_needs_nothing_from_elsewhere() -> None:
    response = await AsyncClient().get("/")

    text = response.content.decode()
    assert "The &lt;Mill&gt;" in text
    assert "What does a ticket cost?" in text
    assert "//" not in text.replace("<!doctype html>", "").split("<body")[0]
    assert "default-src 'none'" in response["Content-Security-Policy"]


async def test_the_api_is_only_posted_to() -> None:
    assert (await AsyncClient().get("/api/chat")).status_code == 405


@pytest.mark.usefixtures("site")
def test_under_wsgi_the_chat_says_which_servers_it_needs() -> None:
    asked = Client(raise_request_exception=False).post(
        "/api/chat", json.dumps({"question": QUESTION}), content_type="application/json"
    )
    ready = Client().get("/readyz")

    assert (asked.status_code, asked.json()["error"]["code"]) == (500, "asgi_required")
    assert "uvicorn" in asked.json()["error"]["message"]
    assert (ready.status_code, ready.json()["model"]) == (503, None)
    assert "uvicorn" in ready.json()["reason"]


def test_under_wsgi_the_process_is_alive_all_the_same() -> None:
    assert Client().get("/livez").status_code == 200


@pytest.mark.parametrize(("model_status", "status"), [(200, 200), (500, 503)])
@pytest.mark.usefixtures("site")
async def test_probes_that_wait_for_the_first_token_together_get_the_same_answer(
    model: FakeModel, model_status: int, status: int
) -> None:
    model.status = model_status
    model.before_piece = lambda: asyncio.sleep(0)

    ready = await asyncio.gather(*[AsyncClient().get("/readyz") for _ in range(3)])

    assert [response.status_code for response in ready] == [status] * 3
    assert len(model.bodies) == 1


@pytest.mark.parametrize("length", [70_000, 3_000_000])
@pytest.mark.usefixtures("site")
async def test_a_body_whose_length_was_not_announced_is_measured(length: int) -> None:
    question = json.dumps({"question": "x" * length}).encode()
    asked = ApplicationCommunicator(
        get_asgi_application(),
        {
            "type": "http",
            "method": "POST",
            "path": "/api/chat",
            "headers": [(b"host", b"testserver"), (b"transfer-encoding", b"chunked")],
        },
    )
    await asked.send_input({"type": "http.request", "body": question})

    start = await asked.receive_output()
    body = await asked.receive_output()
    await asked.wait()

    assert start["status"] == 400
    assert "longer than 65536 bytes" in json.loads(body["body"])["error"]["message"]


async def test_of_readers_who_come_at_once_those_beyond_the_queue_are_asked_to_come_back(
    site: Answering,
) -> None:
    responses = await asyncio.gather(
        *[post({"question": QUESTION}, accept="text/event-stream") for _ in range(14)]
    )

    assert sorted(response.status_code for response in responses) == [200] * 10 + [429] * 4
    told = [await events(response) for response in responses if response.status_code == 200]
    assert [found[-1][0] for found in told] == ["done"] * 10
    assert (site.queue.running, site.queue.waiting) == (0, 0)


async def test_a_reader_who_goes_before_the_stream_begins_leaves_the_slot(site: Answering) -> None:
    response = await post({"question": QUESTION}, accept="text/event-stream")
    assert site.queue.running == 1

    del response
    for _ in range(5):  # turns of the loop, in which it closes a generator that nobody holds any more
        gc.collect()
        await asyncio.sleep(0)

    assert site.queue.running == 0
