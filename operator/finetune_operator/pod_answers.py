"""Asks the pods of the target over HTTP which model they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp

from finetune_operator.http_answers import OK, ask, http_session, url_host
from finetune_operator.observed import PodFacts, ServedModel

TIMEOUT_SECONDS = 5.0


async def ask_pods(pods: Sequence[PodFacts], port: int) -> tuple[ServedModel, ...]:
    """One answer a pod, in order. A pod that cannot be reached is an answer too."""
    if not pods:
        return ()
    async with http_session(TIMEOUT_SECONDS) as session:
        return tuple(await asyncio.gather(*(_ask(session, pod, port) for pod in pods)))


async def _ask(session: aiohttp.ClientSession, pod: PodFacts, port: int) -> ServedModel:
    url = f"http://{url_host(pod.ip)}:{port}/readyz"
    if not pod.ip:
        return ServedModel(pod.name, problem="it has no address")
    answer = await ask(session, "GET", url)
    if answer.problem:
        return ServedModel(pod.name, problem=answer.problem)
    if answer.status == OK and answer.text("model"):
        return ServedModel(pod.name, answer.text("model"))
    return ServedModel(pod.name, problem=f"GET {url} gave status {answer.status} and no model")
