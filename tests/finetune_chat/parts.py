"""An index and a model server that live inside the test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import httpx

from finetune_chat.answering.answering import Answering
from finetune_chat.answering.errors import IndexUnavailable
from finetune_chat.answering.model_server import ModelServer
from finetune_chat.answering.queue import AnswerQueue
from finetune_chat.answering.retrieve import FoundDocument

MODEL_ID = "sha256:" + "ab" * 32
TICKETS = FoundDocument(
    "Ticket prices",
    "https://mill.example/tickets/",
    "## Winter ticket\n\nAdults pay £7.40 in winter.\n\n## Summer ticket\n\nAdults pay £11.20 in summer.",
)
API = FoundDocument(
    "The API",
    "https://mill.example/api/",
    "## Port\n\nThe API listens on port 8417, at http://mill.example:8417/v1 .",
)


class FakeIndex:
    """Returns the same pages for every question, or none."""

    def __init__(self, *documents: FoundDocument, down: bool = False) -> None:
        self.documents = documents
        self.down = down
        self.asked: list[str] = []

    async def search(self, text: str, limit: int) -> Sequence[FoundDocument]:
        self.asked.append(text)
        if self.down:
            raise IndexUnavailable("Weaviate at http://weaviate:8080: connection refused")
        return self.documents[:limit]

    async def close(self) -> None:
        pass


def chunk(text: str | None = None, finish_reason: str | None = None) -> bytes:
    choice = {"delta": {} if text is None else {"content": text}, "finish_reason": finish_reason, "index": 0}
    return f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}\n\n".encode()


class FakeStream(httpx.AsyncByteStream):
    """The body of an answer, as the model server would send it."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._model.pieces:
            if self._model.before_piece is not None:
                await self._model.before_piece()
            yield chunk(piece)
        if self._model.breaks_off:
            raise httpx.ReadError("gone")
        yield chunk(finish_reason="stop")
        yield b"data: [DONE]\n\n"

    async def aclose(self) -> None:
        self._model.closed_streams += 1


class FakeModel:
    """An OpenAI-style server inside this process."""

    def __init__(self, *pieces: str, model_id: str = MODEL_ID) -> None:
        self.pieces = pieces
        self.model_id = model_id
        self.down = False
        self.busy = False
        self.status = 200
        self.breaks_off = False
        self.bodies: list[dict[str, object]] = []
        self.identity_requests = 0
        self.closed_streams = 0
        self.before_piece: Callable[[], Awaitable[object]] | None = None

    async def handle(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused")
        if self.busy:
            raise httpx.ReadTimeout("slow")
        if request.url.path == "/v1/models":
            self.identity_requests += 1
            return httpx.Response(200, json={"data": [{"id": self.model_id}] if self.model_id else []})
        self.bodies.append(json.loads(request.content))
        return httpx.Response(self.status, stream=FakeStream(self))

    def server(self) -> ModelServer:
        return ModelServer("http://model", 5.0, transport=httpx.MockTransport(self.handle))


def an_answering(
    model: FakeModel, index: FakeIndex | None = None, slots: int = 2, waiting: int = 8
) -> Answering:
    return Answering(
        index=index or FakeIndex(TICKETS, API),
        model=model.server(),
        queue=AnswerQueue(slots, waiting),
        min_score=0.35,
        max_tokens=160,
    )
