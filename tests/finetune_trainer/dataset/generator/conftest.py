"""A fake OpenAI-compatible endpoint that says what a test tells it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from finetune_contract.run_spec import GeneratorSpec
from finetune_trainer.dataset.generator.endpoint import ChatEndpoint


def chat_answer(content: str) -> Response:
    body = {"choices": [{"message": {"role": "assistant", "content": content}}]}
    return Response(json.dumps(body), mimetype="application/json")


@dataclass
class FakeModel:
    """Answers chat questions by `say`, unless `before` answers first."""

    server: HTTPServer
    say: Callable[[str], str] = lambda section: '{"pairs": []}'
    before: Callable[[Request, dict[str, Any]], Response | None] = lambda request, body: None
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Response:
        self.keys.append(request.headers.get("Authorization"))
        if request.method == "GET":
            return self.before(request, {}) or Response('{"data": []}', mimetype="application/json")
        body = json.loads(request.data)
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.asked.append(body)
        try:
            return self.before(request, body) or chat_answer(self.say(body["messages"][-1]["content"]))
        finally:
            with self.lock:
                self.in_flight -= 1

    def spec(self, **changes: Any) -> GeneratorSpec:
        fields = {"url": self.server.url_for("/v1"), "model": "writer", **changes}
        return GeneratorSpec.model_validate(fields)

    def endpoint(self, waits: list[float] | None = None, key: str = "", **changes: Any) -> ChatEndpoint:
        environment = {"GENERATOR_API_KEY": key} if key else {}
        waited = waits if waits is not None else []
        return ChatEndpoint(self.spec(**changes), environment, sleep=waited.append)


@pytest.fixture
def model(httpserver: HTTPServer) -> FakeModel:
    fake = FakeModel(httpserver)
    httpserver.expect_request(re.compile("/v1/.*")).respond_with_handler(fake.answer)
    return fake
