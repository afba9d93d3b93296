"""A request to a pod or a Service of the target, bounded in time and bytes. A failure is an answer, too."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

MAX_ANSWER_BYTES = 65536
OK = 200


@dataclass(frozen=True)
class HttpAnswer:
    """What came back."""

    status: int = 0
    """0 when nothing came."""
    body: Any = None
    """The JSON; None when it is something else."""
    problem: str = ""
    """Why nothing came."""

    def text(self, field: str) -> str:
        """A field of the JSON that is a text; empty otherwise."""
        value = self.body.get(field) if isinstance(self.body, dict) else None
        return value if isinstance(value, str) else ""


def http_session(seconds: float) -> aiohttp.ClientSession:
    """A connection of its own for every request, so that a Service chooses a pod each time; no proxy."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=seconds),
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
        trust_env=False,
    )


def url_host(ip: str) -> str:
    """An address as it stands in a URL."""
    return f"[{ip}]" if ":" in ip else ip


async def ask(
    session: aiohttp.ClientSession, method: str, url: str, question: object | None = None
) -> HttpAnswer:
    """Send JSON, or nothing, and read JSON."""
    try:
        async with session.request(
            method, url, json=question, headers={"Accept": "application/json"}, allow_redirects=False
        ) as response:
            return HttpAnswer(response.status, _read(await _beginning(response)))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return HttpAnswer(problem=f"{method} {url}: {type(error).__name__} {error}"[:300].rstrip())


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """The whole answer, or as much of it as a pod may say."""
    try:
        return await response.content.readexactly(MAX_ANSWER_BYTES)
    except asyncio.IncompleteReadError as error:
        return error.partial


def _read(answer: bytes) -> Any:
    """The JSON; None when it is something else, or goes on and on."""
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None
