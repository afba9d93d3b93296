"""Asking pods which model they serve."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web

from finetune_operator.http_answers import MAX_ANSWER_BYTES
from finetune_operator.observed import ServedModel
from finetune_operator.pod_answers import ask_pods
from tests.finetune_operator.samples import a_target_pod

POD = replace(a_target_pod(), ip="127.0.0.1")


@pytest.fixture
async def pod_port() -> AsyncIterator[tuple[dict[str, web.Response], int]]:
    answers: dict[str, web.Response] = {}

    async def readyz(_: web.Request) -> web.Response:
        return answers["/readyz"]

    application = web.Application()
    application.router.add_get("/readyz", readyz)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield answers, runner.addresses[0][1]
    await runner.cleanup()


async def test_a_ready_pod_names_its_model(pod_port):
    answers, port = pod_port
    answers["/readyz"] = web.json_response({"model": "sha256:1"})

    assert await ask_pods([POD], port) == (ServedModel("chat-1", "sha256:1"),)


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.json_response({"model": "sha256:1"}, status=503),
        lambda: web.json_response({"state": "loading"}),
        lambda: web.json_response(["model"]),
        lambda: web.Response(text="<html>"),
        lambda: web.Response(status=302, headers={"Location": "http://example.org"}),
    ],
)
async def test_any_other_answer_is_a_problem_and_no_model(pod_port, response):
    answers, port = pod_port
    answers["/readyz"] = response()

    (served,) = await ask_pods([POD], port)

    assert served.model == ""
    assert "/readyz" in served.problem


async def test_a_pod_that_cannot_be_reached_is_an_answer_too():
    (served,) = await ask_pods([POD], 9)
    (unnamed,) = await ask_pods([replace(POD, ip="")], 9)

    assert "GET http://127.0.0.1:9/readyz" in served.problem
    assert unnamed.problem == "it has no address"


async def test_an_answer_without_an_end_is_given_up_after_a_while():
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(64):
            await response.write(b'"' + b"x" * MAX_ANSWER_BYTES)
        return response

    application = web.Application()
    application.router.add_get("/readyz", endless)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (served,) = await ask_pods([POD], runner.addresses[0][1])
    await runner.cleanup()

    assert served.problem.endswith("status 200 and no model")
