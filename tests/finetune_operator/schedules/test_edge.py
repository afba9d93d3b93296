"""What a schedule's events wake, and what its reconciler asks of the API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from finetune_contract.schedule_status import Cause, FineTuneScheduleStatus
from finetune_operator.errors import ClusterRefused, CrdTooOld, StaleObject
from finetune_operator.observed import RunKey
from finetune_operator.schedules.observed import CreateRun, Schedule, ScheduleAction
from finetune_operator.schedules.reading import child
from finetune_operator.schedules.reconcile import AT_ONCE, REFUSED_SECONDS, ScheduleReconciler
from finetune_operator.schedules.watched import WatchedSchedules
from tests.finetune_operator.schedules.small_place import NOON, RUN_SPEC

KEY = RunKey("ml", "blog")


def a_schedule(**spec: Any) -> dict[str, Any]:
    metadata = {
        "name": "blog",
        "namespace": "ml",
        "uid": "u1",
        "generation": 1,
        "resourceVersion": "5",
        "creationTimestamp": "2026-06-01T12:00:00Z",
    }
    return {"metadata": metadata, "spec": {"revision": "a", "template": {"spec": RUN_SPEC}} | spec}


def a_run(phase: str = "", **changes: Any) -> dict[str, Any]:
    owner = {"kind": "FineTuneSchedule", "name": "blog", "controller": True}
    metadata = {
        "name": "blog-r-1",
        "namespace": "ml",
        "uid": "r1",
        "labels": {"finetune-operator.io/cause": "Revision"},
        "creationTimestamp": "2026-06-01T12:00:00Z",
        "ownerReferences": [owner],
    }
    return {"metadata": metadata | changes, "spec": {}, "status": {"phase": phase} if phase else {}}


class Api:
    """One schedule."""

    def __init__(self, body: dict[str, Any] | None, runs: list[dict[str, Any]] | None = None) -> None:
        self.body = body
        self.runs = runs or []
        self.done: list[ScheduleAction] = []
        self.written: list[FineTuneScheduleStatus] = []
        self.refuses: Exception | None = None
        self.stale = False
        self.refuses_field = ""

    async def read_schedule(self, key: RunKey) -> dict[str, Any] | None:
        assert key == KEY
        return self.body

    async def list_children(self, schedule: Schedule) -> list[dict[str, Any]]:
        return self.runs

    async def apply(self, schedule: Schedule, actions: Any, now: str) -> None:
        if self.refuses is not None and actions:
            raise self.refuses
        self.done += actions

    async def write_status(self, key: RunKey, resource_version: str, status: FineTuneScheduleStatus) -> None:
        assert (key, resource_version) == (KEY, "5")
        if self.stale:
            raise StaleObject("changed meanwhile")
        if status.to_wire().get(self.refuses_field):
            raise CrdTooOld(f"older than this operator: .status.{self.refuses_field}")
        self.written.append(status)


def one_pass(api: Api) -> float | None:
    clock = datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC)
    assert clock > NOON
    return asyncio.run(ScheduleReconciler(api, lambda: clock).reconcile(KEY))


def test_a_pass_makes_the_run_that_is_due_and_then_writes_the_status():
    api = Api(a_schedule())

    one_pass(api)

    (action,) = api.done
    assert isinstance(action, CreateRun)
    (status,) = api.written
    assert status.revision == "a"
    assert status.active == [action.name]


def test_a_pass_that_finds_nothing_new_writes_nothing():
    api = Api(a_schedule())
    one_pass(api)
    api.body = a_schedule() | {"status": api.written[0].to_wire()}
    made = api.done[0]
    assert isinstance(made, CreateRun)
    api.runs = [a_run(name=made.name, creationTimestamp="2026-06-01T12:00:30Z")]

    one_pass(api)

    assert len(api.written) == 1


def test_a_schedule_that_is_gone_or_going_is_left_alone():
    going = a_schedule()
    going["metadata"]["deletionTimestamp"] = "2026-06-01T12:00:00Z"

    assert one_pass(Api(None)) is None
    assert one_pass(Api(going)) is None


def test_a_refused_run_is_told_and_tried_again_and_the_revision_stays_due():
    api = Api(a_schedule())
    api.refuses = ClusterRefused("POST finetuneruns: 403 exceeded quota")

    assert one_pass(api) == REFUSED_SECONDS
    (status,) = api.written
    assert status.revision == ""
    ready = next(found for found in status.conditions if found.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "Refused")
    assert "exceeded quota" in ready.message


def test_a_status_that_the_crd_does_not_know_is_told_in_the_status_that_was_there():
    api = Api(a_schedule())
    api.refuses_field = "revision"

    assert one_pass(api) == REFUSED_SECONDS
    (status,) = api.written
    ready = next(found for found in status.conditions if found.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "Refused")
    assert "older than this operator: .status.revision" in ready.message
    assert status.revision == ""

    api.body = a_schedule() | {"status": status.to_wire()}
    assert one_pass(api) == REFUSED_SECONDS
    assert len(api.written) == 1


def test_a_schedule_that_changed_meanwhile_is_looked_at_again():
    api = Api(a_schedule())
    api.stale = True

    assert one_pass(api) == AT_ONCE


def test_a_schedule_of_another_version_says_so_once_and_makes_nothing():
    api = Api(a_schedule(cron=5, colour="red"))

    assert one_pass(api) == 300.0
    (status,) = api.written
    ready = next(found for found in status.conditions if found.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "InvalidSpec")
    assert "spec.colour" in ready.message
    assert api.done == []

    api.body = a_schedule(cron=5, colour="red") | {"status": status.to_wire()}
    assert one_pass(api) == 300.0
    assert len(api.written) == 1


def test_what_another_version_said_of_a_schedule_is_not_overwritten():
    api = Api(a_schedule(cron=5) | {"status": {"moonPhase": "full"}})

    assert one_pass(api) == 300.0
    assert api.written == api.done == []


def test_a_run_is_read_with_what_its_dataset_told():
    run = a_run("Unchanged")
    run["status"] |= {
        "runKey": "k",
        "dataset": {"digest": "d", "changedDocuments": 3},
        "completionTime": "2026-06-01T13:00:00Z",
    }
    found = child(run)

    assert found is not None
    assert (found.cause, found.over, found.changed_posts) == (Cause.REVISION, True, 3)
    assert (found.run_key, found.dataset_digest) == ("k", "d")
    assert child(a_run(labels={})) is None
    assert child(a_run("SomethingNew")) is None


# what wakes a schedule


class Queue:
    def __init__(self) -> None:
        self.added: list[RunKey] = []
        self.expected: set[RunKey] = set()

    def add(self, key: RunKey) -> None:
        self.added.append(key)

    def expects(self, key: RunKey) -> bool:
        return key in self.expected

    def forget(self, key: RunKey) -> None:
        self.expected.discard(key)


def test_a_change_of_the_spec_wakes_and_the_operators_own_words_do_not():
    queue = Queue()
    schedules = WatchedSchedules(queue)
    body = a_schedule()
    schedules.schedule_changed(body)
    schedules.schedule_changed(body | {"status": {"observedGeneration": 1}})
    assert queue.added == [KEY]

    body["metadata"]["generation"] = 2
    schedules.schedule_changed(body)
    assert queue.added == [KEY, KEY]


def test_schedules_are_counted_by_why_they_are_ready_or_not():
    schedules = WatchedSchedules(Queue())
    schedules.schedule_changed(a_schedule())
    assert schedules.by_reason() == {("ml", "Waiting"): 1}

    condition = {"type": "Ready", "status": "False", "reason": "InvalidSpec"}
    schedules.schedule_changed(a_schedule() | {"status": {"conditions": [condition]}})
    assert schedules.by_reason() == {("ml", "InvalidSpec"): 1}
    schedules.schedule_gone(KEY)
    assert schedules.by_reason() == {}


def test_a_run_wakes_its_schedule_when_its_phase_changes_and_when_it_goes():
    queue = Queue()
    schedules = WatchedSchedules(queue)
    schedules.schedule_changed(a_schedule())
    for run in (a_run("Training"), a_run("Training"), a_run("Succeeded"), a_run(ownerReferences=[])):
        schedules.run_changed(run)
    schedules.run_changed(a_run("Succeeded"), gone=True)

    assert queue.added == [KEY] * 4


def test_a_run_that_begins_or_ends_to_wait_for_a_person_wakes_its_schedule():
    queue = Queue()
    schedules = WatchedSchedules(queue)
    schedules.schedule_changed(a_schedule())
    going, stalled = a_run("RollingOut"), a_run("RollingOut")
    told = {"type": "Stalled", "status": "True", "reason": "NoReplicas", "message": "scale it up"}
    stalled["status"]["conditions"] = [told]
    for run in (going, stalled, stalled, going):
        schedules.run_changed(run)

    found = child(stalled)
    assert queue.added == [KEY] * 4
    assert found is not None
    assert found.stalled == "scale it up"


class Lists:
    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.bodies = list(bodies)

    async def schedule_pages(self, namespace: str) -> AsyncIterator[list[dict[str, Any]]]:
        yield self.bodies


def test_a_resync_looks_at_those_that_nobody_would_look_at_and_forgets_those_that_are_gone():
    queue = Queue()
    schedules = WatchedSchedules(queue)
    asyncio.run(schedules.resync(Lists(a_schedule()), "ml"))
    queue.expected.add(KEY)
    asyncio.run(schedules.resync(Lists(a_schedule()), "ml"))
    assert set(queue.added) == {KEY}
    seen = len(queue.added)

    asyncio.run(schedules.resync(Lists(), "ml"))
    assert (len(queue.added), len(schedules), queue.expected) == (seen, 0, set())
