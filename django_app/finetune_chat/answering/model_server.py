"""Speaks to an OpenAI-style model server over HTTP. Its library's errors end here.

Must not know what is asked or why.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import httpx
from pydantic import BaseModel, ValidationError

from finetune_chat.answering.errors import ModelUnavailable
from finetune_contract.artifacts import ChatMessage

IDENTITY_SECONDS = 5.0
"""How long an answer of /v1/models is believed."""
BUSY_SECONDS = 60.0
"""And how long when the server is there and merely too busy to say it again."""
WARM_UP_PATIENCE_SECONDS = 2.0
"""How long one question about readiness waits for the first token."""


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Chunk(BaseModel):
    choices: list[_Choice] = []


@dataclass(frozen=True)
class Token:
    """A piece of an answer; the last one has the reason why it ended."""

    text: str
    finish_reason: str | None = None


class ModelServer:
    """One server at a base URL. Connects when it is first asked."""

    def __init__(
        self,
        base_url: str,
        read_timeout_seconds: float,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout = httpx.Timeout(5.0, read=read_timeout_seconds)
        self._transport = transport
        self._clock = clock
        self._client: httpx.AsyncClient | None = None
        self._identity: tuple[float, str] | None = None
        self._warm_model: str | None = None
        self._warming: asyncio.Task[None] | None = None

    async def model_id(self) -> str:
        """Which model is served; empty when the server says that there is none yet.

        Raises:
            ModelUnavailable: no answer.
        """
        now = self._clock()
        if self._identity is not None and now - self._identity[0] < IDENTITY_SECONDS:
            return self._identity[1]
        try:
            answer = await self._http().get(f"{self._base_url}/v1/models", timeout=3.0)
            answer.raise_for_status()
            models = _Models.model_validate_json(answer.content)
        except httpx.TimeoutException as error:
            if self._identity is not None and now - self._identity[0] < BUSY_SECONDS:
                return self._identity[1]
            raise self._unavailable(error) from error
        except (httpx.HTTPError, ValidationError) as error:
            raise self._unavailable(error) from error
        served = models.data[0].id if models.data else ""
        self._identity = (now, served)
        return served

    async def require_warm(self, model_id: str) -> None:
        """See that the model has written one token, once a model: loaded is not yet working.

        The token is asked for in the background, so that an impatient probe does not start it again and again.

        Raises:
            ModelUnavailable: it did not, or not yet.
        """
        if self._warm_model == model_id:
            return
        if self._warming is None:
            self._warming = asyncio.create_task(self._write_one_token())
        warming = self._warming  # others wait for it too, and whoever wakes first takes it away
        await asyncio.wait({warming}, timeout=WARM_UP_PATIENCE_SECONDS)
        if not warming.done():
            raise ModelUnavailable("the model is loaded and has not yet written its first token")
        if self._warming is warming:
            self._warming = None
        warming.result()
        self._warm_model = model_id

    async def _write_one_token(self) -> None:
        async with aclosing(self.answer([ChatMessage(role="user", content="Hello")], 1)) as tokens:
            async for _ in tokens:
                pass

    async def answer(self, messages: Sequence[ChatMessage], max_tokens: int) -> AsyncGenerator[Token, None]:
        """Stream the most likely answer. Leaving the iteration early frees the server's slot.

        Raises:
            ModelUnavailable: no answer, or it broke off.
        """
        body = {
            "messages": [message.to_wire() for message in messages],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "cache_prompt": True,
        }
        try:
            async with self._http().stream(
                "POST", f"{self._base_url}/v1/chat/completions", json=body
            ) as answer:
                if answer.status_code != 200:
                    await answer.aread()
                    raise ModelUnavailable(f"the model server answered {answer.status_code} to a question")
                async for line in _lines(answer):
                    data = line.removeprefix(b"data:").strip()
                    if not line.startswith(b"data:") or not data:
                        continue
                    if data == b"[DONE]":
                        return
                    for choice in _Chunk.model_validate(json.loads(data)).choices:
                        yield Token(choice.delta.content or "", choice.finish_reason)
        except (httpx.HTTPError, ValidationError, json.JSONDecodeError) as error:
            raise self._unavailable(error) from error

    async def close(self) -> None:
        """Let connections go."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=self._timeout, transport=self._transport, trust_env=False
            )
        return self._client

    def _unavailable(self, error: Exception) -> ModelUnavailable:
        self._identity = None
        return ModelUnavailable(f"model server at {self._base_url}: {type(error).__name__}")


async def _lines(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Lines of a stream. httpx's own end at U+2028 and U+0085 too, which stand as they are within JSON."""
    rest = b""
    async for piece in answer.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
    yield rest
