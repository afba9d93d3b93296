"""Lists everything from time to time, page by page, and finds what no event told. Must not know what becomes of it.

What it costs grows with the number of runs and of what goes on of them, by a page for some hundred; a look at a run is
called for only where something is found.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from finetune_operator import reading
from finetune_operator.children import (
    Children,
    children_of_packed,
    job_ended,
    pack,
    pod_ended,
    version_of,
)
from finetune_operator.memory import Memory
from finetune_operator.observed import RunKey
from finetune_operator.watched import Versions

BREATH_SECONDS = 0.2
"""Between two pages: other work goes on meanwhile."""

Json = Mapping[str, Any]
Pages = AsyncIterator[list[dict[str, Any]]]


class Lists(Protocol):
    """What is listed."""

    def run_pages(self, namespace: str) -> Pages: ...
    def job_pages(self, namespace: str, *, ended: bool = False) -> Pages: ...
    def pod_pages(self, namespace: str, *, ended: bool = False) -> Pages: ...


class Watched(Protocol):
    """Who is told."""

    def listed_run(self, body: Json, within_seconds: float) -> RunKey: ...
    def not_listed(self, namespace: str, seen: set[RunKey]) -> None: ...
    def listed_children(self, namespace: str, jobs: Versions, pods: Versions) -> None: ...


async def read_everything(lists: Lists, memory: Memory[Children], namespace: str) -> None:
    """After a start: what a look at each run would read, in as many requests as there are pages.

    Runs are read last and pods after Jobs: what comes later may be newer than what it is held against, never older.
    """
    jobs: dict[RunKey, list[bytes]] = defaultdict(list)
    pods: dict[RunKey, list[bytes]] = defaultdict(list)
    for found, pages in (
        (jobs, lists.job_pages(namespace, ended=True)),
        (pods, lists.pod_pages(namespace, ended=True)),
    ):
        async for page in pages:
            for body in page:
                if (key := reading.owning_run(body)) is not None:
                    found[key].append(pack(body))
            await asyncio.sleep(0)
    async for page in lists.run_pages(namespace):
        for body in page:
            if not reading.is_settled(body):
                key = reading.run_key(body)
                children = children_of_packed(jobs.pop(key, ()), pods.pop(key, ()))
                memory.keep(key, memory.begin(key), body, children, listed=True)
        await asyncio.sleep(0)


async def list_runs(lists: Lists, watched: Watched, namespace: str, within_seconds: float) -> None:
    """All runs of a namespace, or of every one.

    Args:
        within_seconds: looks that are in no hurry are spread over this time.
    """
    seen: set[RunKey] = set()
    async for page in lists.run_pages(namespace):
        for body in page:
            seen.add(watched.listed_run(body, within_seconds))
        await asyncio.sleep(BREATH_SECONDS if page else 0)
    watched.not_listed(namespace, seen)


async def list_children(lists: Lists, watched: Watched, namespace: str) -> None:
    """The Jobs and pods of runs that have not ended."""
    jobs: dict[RunKey, set[str]] = defaultdict(set)
    pods: dict[RunKey, set[str]] = defaultdict(set)
    for found, pages, ended in (
        (jobs, lists.job_pages(namespace), job_ended),
        (pods, lists.pod_pages(namespace), pod_ended),
    ):
        async for page in pages:
            for body in page:
                key = reading.owning_run(body)
                if key is not None and not ended(body):
                    found[key].add(version_of(body))
            await asyncio.sleep(BREATH_SECONDS if page else 0)
    watched.listed_children(namespace, jobs, pods)
