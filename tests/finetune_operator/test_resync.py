"""Lists of everything, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from finetune_operator import resync
from finetune_operator.children import Children
from finetune_operator.errors import ClusterUnavailable
from finetune_operator.memory import Memory
from finetune_operator.observed import RunKey
from finetune_operator.watched import Versions

Page = list[dict[str, Any]]


def run(name: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "demo", "name": name}}


def child(name: str, version: str, **status: Any) -> dict[str, Any]:
    labels = {"finetune-operator.io/run": name} if name else {}
    metadata = {"namespace": "demo", "labels": labels, "resourceVersion": version}
    return {"metadata": metadata, "status": status}


class Lists:
    """Pages; after the last of them the API server may fall silent."""

    def __init__(self, *, runs: list[Page] = [], jobs: list[Page] = [], pods: list[Page] = []) -> None:  # noqa: B006
        self.runs, self.jobs, self.pods = runs, jobs, pods
        self.falls_silent = False
        self.with_ended: list[bool] = []

    async def _pages(self, pages: list[Page]) -> AsyncIterator[Page]:
        for page in pages:
            yield page
        if self.falls_silent:
            raise ClusterUnavailable("no answer")

    def run_pages(self, namespace: str) -> AsyncIterator[Page]:
        return self._pages(self.runs)

    def job_pages(self, namespace: str, *, ended: bool = False) -> AsyncIterator[Page]:
        self.with_ended.append(ended)
        return self._pages(self.jobs)

    def pod_pages(self, namespace: str, *, ended: bool = False) -> AsyncIterator[Page]:
        self.with_ended.append(ended)
        return self._pages(self.pods)


class Told:
    """What is told of a list."""

    def __init__(self) -> None:
        self.listed: list[str] = []
        self.seen: set[RunKey] | None = None
        self.jobs: Versions = {}
        self.pods: Versions = {}

    def listed_run(self, body: Any, within_seconds: float) -> RunKey:
        self.listed.append(body["metadata"]["name"])
        return RunKey("demo", body["metadata"]["name"])

    def not_listed(self, namespace: str, seen: set[RunKey]) -> None:
        self.seen = seen

    def listed_children(self, namespace: str, jobs: Versions, pods: Versions) -> None:
        self.jobs, self.pods = jobs, pods


@pytest.fixture(autouse=True)
def no_breath(monkeypatch):
    monkeypatch.setattr(resync, "BREATH_SECONDS", 0.0)


async def test_every_run_of_every_page_is_told_of_and_then_that_the_list_is_whole():
    told = Told()

    await resync.list_runs(Lists(runs=[[run("a"), run("b")], [run("c")]]), told, "demo", 60.0)

    assert told.listed == ["a", "b", "c"]
    assert told.seen == {RunKey("demo", name) for name in "abc"}


async def test_a_list_that_broke_off_takes_no_run_for_gone():
    told, lists = Told(), Lists(runs=[[run("a")]])
    lists.falls_silent = True

    with pytest.raises(ClusterUnavailable):
        await resync.list_runs(lists, told, "demo", 60.0)

    assert told.listed == ["a"]
    assert told.seen is None


async def test_children_are_told_of_by_run_where_they_go_on():
    told = Told()
    failed = child("a", "2", conditions=[{"type": "Failed", "status": "True"}])
    jobs = [[child("a", "1"), failed], [child("b", "3"), child("", "4")]]
    pods = [
        [child("a", "5", phase="Running"), child("a", "6", phase="Failed"), child("b", "7", phase="Pending")]
    ]

    await resync.list_children(Lists(jobs=jobs, pods=pods), told, "demo")

    a, b = RunKey("demo", "a"), RunKey("demo", "b")
    assert told.jobs == {a: {"1"}, b: {"3"}}
    assert told.pods == {a: {"5"}, b: {"7"}}


async def test_after_a_start_everything_is_remembered_but_runs_that_ended():
    memory = Memory[Children]()
    over = run("over") | {"status": {"phase": "Failed", "observedGeneration": 1}}
    over["metadata"]["generation"] = 1
    complete = child("a", "1", conditions=[{"type": "Complete", "status": "True"}])
    lists = Lists(
        runs=[[run("a"), over], [run("b")]],
        jobs=[[complete, child("a", "2")], [child("over", "3"), child("", "4")]],
        pods=[[child("a", "5", phase="Running")]],
    )

    await resync.read_everything(lists, memory, "demo")

    a, b = RunKey("demo", "a"), RunKey("demo", "b")
    assert set(memory) == {a, b}
    sight, empty = memory.recall(a), memory.recall(b)
    assert sight is not None
    assert empty is not None
    assert sight.listed
    assert sight.run["metadata"]["name"] == "a"
    assert sight.children.versions == {"1", "2", "5"}
    assert sight.children.open_versions == {"2", "5"}
    assert empty.children.versions == frozenset()
    assert lists.with_ended == [True, True], "attempts that ended count too"
