"""Asks the pods of the target over HTTP which model they serve. The operator's only request outside the API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

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
            body = await response.json(content_type=None) if _short(response) else None
            model = body.get("model") if isinstance(body, dict) else None
            if response.status == 200 and isinstance(model, str) and model:
                return ServedModel(pod.name, model)
            return ServedModel(pod.name, problem=f"GET {url} gave status {response.status} and no model")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return ServedModel(pod.name, problem=f"GET {url}: {type(error).__name__} {error}"[:300])


def _short(response: aiohttp.ClientResponse) -> bool:
    return (response.content_length or 0) <= MAX_ANSWER_BYTES
