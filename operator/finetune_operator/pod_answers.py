"""Asks the pods of the target over HTTP which model they serve. The operator's only request outside the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import aiohttp

from finetune_operator.observed import PodFacts, ServedModel

TIMEOUT_SECONDS = 5.0
MAX_ANSWER_BYTES = 65536


async def ask_pods(pods: Sequence[PodFacts], port: int) -> tuple[ServedModel, ...]:
    """One answer a pod, in order. A pod that cannot be reached is an answer too."""
    if not pods:
        return ()
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        return tuple(await asyncio.gather(*(_ask(session, pod, port) for pod in pods)))


async def _ask(session: aiohttp.ClientSession, pod: PodFacts, port: int) -> ServedModel:
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    url = f"http://{host}:{port}/readyz"
    if not pod.ip:
        return ServedModel(pod.name, problem="it has no address")
    try:
        async with session.get(url, allow_redirects=False) as response:
            body = _read(await _beginning(response))
            model = body.get("model") if isinstance(body, dict) else None
            if response.status == 200 and isinstance(model, str) and model:
                return ServedModel(pod.name, model)
            return ServedModel(pod.name, problem=f"GET {url} gave status {response.status} and no model")
    except (aiohttp.ClientError, TimeoutError) as error:
        return ServedModel(pod.name, problem=f"GET {url}: {type(error).__name__} {error}"[:300])


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
