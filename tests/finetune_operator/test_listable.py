"""Which namespaces are watched when some cannot be."""

from __future__ import annotations

import asyncio
from typing import Any

from finetune_operator import listable as module
from finetune_operator.errors import ClusterRefused, ClusterUnavailable, NotFound, OperatorError
from finetune_operator.listable import listable

FORBIDDEN = ClusterRefused("403")


class Namespaces:
    """Answers each namespace's list with what comes next for it."""

    def __init__(self, **answers: list[OperatorError | None]) -> None:
        self.answers = answers

    async def list_runs(self, namespace: str) -> list[dict[str, Any]]:
        left = self.answers[namespace]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is not None:
            raise answer
        return []


async def found(monkeypatch: Any, **answers: list[OperatorError | None]) -> list[str]:
    monkeypatch.setattr(module, "MISSING_SECONDS", 0.0)
    return await asyncio.wait_for(listable(Namespaces(**answers).list_runs, list(answers)), 2)


async def test_a_namespace_that_is_gone_with_its_rights_does_not_keep_the_others_unwatched(monkeypatch):
    assert await found(monkeypatch, gone=[FORBIDDEN], team=[None]) == ["team"]


async def test_an_operator_that_may_list_nothing_yet_waits_for_its_rights(monkeypatch):
    assert await found(monkeypatch, team=[FORBIDDEN, FORBIDDEN, None]) == ["team"]


async def test_without_the_resource_nothing_is_watched_until_it_is_there(monkeypatch):
    assert await found(monkeypatch, a=[NotFound("404"), None], b=[NotFound("404"), None]) == ["a", "b"]


async def test_an_api_server_that_fails_for_a_moment_leaves_no_namespace_out(monkeypatch):
    assert await found(monkeypatch, a=[None], b=[ClusterUnavailable("503"), None]) == ["a", "b"]
