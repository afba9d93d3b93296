"""One pass: gather, decide, act, write; and what happens when the API server says no."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from finetune_contract.run_status import ConditionType, FailureClass, FineTuneRunStatus, Phase, Reason
from finetune_contract.stage_protocol import Stage
from finetune_operator.actions import Action, CreateJob, DeleteJob
from finetune_operator.conditions import merged, true
from finetune_operator.errors import ClusterRefused, ClusterUnavailable, NotFound, OperatorError, StaleObject
from finetune_operator.events import RunEvent
from finetune_operator.lifecycle import WELL
from finetune_operator.observed import Observed, Run, RunKey
from finetune_operator.operator_log import JsonLines
from finetune_operator.outlook import OVER, Mood
from finetune_operator.reconcile import Reconciler
from finetune_operator.status_writing import kstatus
from tests.finetune_operator.samples import (
    ALL_STAGES,
    NOON,
    UID,
    a_job,
    a_pod,
    a_spec,
    a_status,
    an_attempt,
    seen,
)

KEY = RunKey("demo", "blog")


class Recorder:
    """A cluster that answers what it is told to, and keeps what it is asked."""

    def __init__(self, observed: Observed | None = None, **changes: Any) -> None:
        self.body: dict[str, Any] | None = {
            "metadata": {
                "namespace": "demo",
                "name": "blog",
                "uid": UID,
                "generation": 1,
                "resourceVersion": "5",
            },
            "spec": a_spec(),
        } | changes
        self.observed = observed or seen()
        self.calls: list[str] = []
        self.actions: tuple[Action, ...] = ()
        self.written: dict[str, Any] = {}
        self.events: tuple[RunEvent, ...] = ()
        self.apply_error: OperatorError | None = None
        self.write_error: OperatorError | None = None

    async def read_run(self, key: RunKey) -> dict[str, Any] | None:
        return self.body

    async def read_children(self, run: Run) -> str:
        self.calls.append("children")
        return "as read"

    async def observe(self, run: Run, children: str, *, logs: bool = True) -> Observed:
        assert children == "as read"
        self.calls.append("observe")
        return self.observed

    async def apply(self, run: Run, actions: tuple[Action, ...]) -> None:
        self.calls.append("apply")
        if self.apply_error:
            raise self.apply_error
        self.actions = actions

    async def write_status(self, run: Run, status: FineTuneRunStatus) -> str:
        return await self.write_status_of(run.key, run.resource_version, status.to_wire())

    async def write_status_of(self, key: RunKey, resource_version: str, status: dict[str, object]) -> str:
        self.calls.append(f"write at {resource_version}")
        if self.write_error:
            raise self.write_error
        self.written = status
        return str(int(resource_version) + 1)

    async def publish(self, run: Run, events: tuple[RunEvent, ...], now: str) -> None:
        self.calls.append("publish")
        self.events = events


async def one_pass(cluster: Recorder) -> float | None:
    return await Reconciler(cluster, lambda: NOON).reconcile(KEY)


async def test_a_pass_acts_then_writes_once_then_tells():
    cluster = Recorder()

    again = await one_pass(cluster)

    assert cluster.calls == ["children", "observe", "apply", "write at 5", "publish"]
    assert cluster.actions == (CreateJob(Stage.DATASET, 0),)
    assert cluster.written["phase"] == "BuildingDataset"
    assert [event.reason for event in cluster.events] == ["Running"]
    assert again == 5


async def test_nothing_is_written_when_nothing_changed():
    first = Recorder(seen(a_job(Stage.DATASET, pod=a_pod(), log_tail=())))
    await one_pass(first)
    second = Recorder(first.observed, status=first.written)

    await one_pass(second)

    assert second.calls == ["children", "observe", "apply"]


@pytest.mark.parametrize("phase", sorted(OVER))
async def test_a_job_that_was_made_after_its_run_had_ended_is_stopped_and_nothing_is_written(phase):
    over = a_status(ALL_STAGES, phase=phase, observed_generation=1)
    late = a_job(Stage.TRAIN, 3, pod=a_pod())
    going, ended = a_job(Stage.TRAIN, 4, deleting=True), a_job(Stage.DATASET, complete=True)
    cluster = Recorder(seen(late, going, ended), status=over.to_wire())

    assert await one_pass(cluster) is None
    assert cluster.actions == (DeleteJob(late.name),)
    assert cluster.written == {}


async def test_a_run_that_is_gone_or_going_is_left_alone():
    gone, going = Recorder(), Recorder()
    gone.body = None
    assert going.body is not None
    going.body["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"

    assert await one_pass(gone) is None
    assert await one_pass(going) is None
    assert gone.calls == going.calls == []


async def test_a_status_that_somebody_else_wrote_first_is_decided_anew_at_once():
    cluster = Recorder()
    cluster.write_error = StaleObject("changed")

    assert await one_pass(cluster) == 0


async def test_a_target_that_changed_since_it_was_seen_is_looked_at_again_and_nothing_is_written():
    cluster = Recorder()
    cluster.apply_error = StaleObject("uid differs")

    assert await one_pass(cluster) == 0
    assert cluster.calls == ["children", "observe", "apply"]


async def test_an_action_that_is_refused_is_told_in_the_status():
    cluster = Recorder()
    cluster.apply_error = ClusterRefused('jobs is forbidden: exceeded quota "gpu"')

    assert await one_pass(cluster) == 60
    stalled = next(found for found in cluster.written["conditions"] if found["type"] == "Stalled")
    assert stalled["status"] == "True"
    assert 'exceeded quota "gpu"' in stalled["message"]


def an_ended(phase: Phase, reason: Reason, **changes: Any) -> FineTuneRunStatus:
    """As the run's last pass left it."""
    mood = Mood.SUCCEEDED if phase in WELL else Mood.FAILED
    words = "deployment/chat serves the model"
    wanted = (*kstatus(mood, reason, words), true(ConditionType.ROLLED_OUT, reason, words))
    told = {"conditions": merged((), wanted, 1, NOON), "observed_generation": 1}
    return a_status(ALL_STAGES, phase=phase, **told | changes)


@pytest.mark.parametrize(
    ("phase", "reason"),
    [(Phase.SUCCEEDED, Reason.COMPLETED), (Phase.FAILED, Reason.CUDA_OUT_OF_MEMORY)],
)
@pytest.mark.parametrize(
    ("spec", "again"), [(a_spec(), 60), (a_spec(colour="red"), 300)], ids=["refused", "not readable"]
)
async def test_a_run_that_has_ended_keeps_what_it_came_to_when_a_later_look_at_it_fails(
    phase, reason, spec, again
):
    cluster = Recorder(spec=spec, status=an_ended(phase, reason).to_wire())
    cluster.apply_error = ClusterRefused('deployments.apps "chat" is forbidden')

    assert await one_pass(cluster) == again
    assert cluster.written == {}


async def test_a_silent_api_server_changes_no_status():
    cluster = Recorder()
    cluster.apply_error = ClusterUnavailable("no answer")

    with pytest.raises(ClusterUnavailable):
        await one_pass(cluster)
    assert cluster.written == {}


async def test_a_run_that_cannot_be_read_is_told_so_by_field():
    cluster = Recorder(spec=a_spec(colour="red"))

    assert await one_pass(cluster) == 300
    stalled = next(found for found in cluster.written["conditions"] if found["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "InvalidSpec")
    assert "spec.colour" in stalled["message"]


async def test_a_run_that_was_deleted_meanwhile_is_no_failure():
    cluster = Recorder()
    cluster.write_error = NotFound("gone")

    assert await one_pass(cluster) is None
    assert "publish" not in cluster.calls


class Gated(Recorder):
    """Looks take as long as the test likes, and several are counted."""

    def __init__(self, status: FineTuneRunStatus) -> None:
        super().__init__(status=status.to_wire())
        self.gate = asyncio.Event()
        self.inside, self.most = 0, 0

    async def observe(self, run: Run, children: str, *, logs: bool = True) -> Observed:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.gate.wait()
        self.inside -= 1
        return self.observed


async def run_until_quiet() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("status", "most"), [(a_status(ALL_STAGES), 1), (a_status(), 3)], ids=["roll", "train"]
)
async def test_runs_with_one_target_take_turns(status, most):
    cluster = Gated(status)
    reconciler = Reconciler(cluster, lambda: NOON)
    passes = [asyncio.create_task(reconciler.reconcile(KEY)) for _ in range(3)]
    await run_until_quiet()
    cluster.gate.set()
    await asyncio.gather(*passes)

    assert cluster.most == most


async def test_a_run_that_waits_for_its_turn_holds_no_worker_and_is_called_when_it_comes():
    called: list[RunKey] = []
    cluster = Gated(a_status(ALL_STAGES))
    reconciler = Reconciler(cluster, lambda: NOON, call=called.append)
    first = asyncio.create_task(reconciler.reconcile(KEY))
    await run_until_quiet()

    again = await asyncio.wait_for(reconciler.reconcile(KEY), 1)

    assert again == 10, "should nobody call it"
    assert called == []
    cluster.gate.set()
    await first
    assert called == [KEY]


async def test_a_turn_ends_with_a_pass_that_fails():
    cluster = Recorder(status=a_status(ALL_STAGES).to_wire())
    cluster.apply_error = ClusterUnavailable("no answer")
    reconciler = Reconciler(cluster, lambda: NOON)

    for _ in range(2):
        with pytest.raises(ClusterUnavailable):
            await reconciler.reconcile(KEY)


async def test_a_status_that_is_refused_is_told_in_the_status_that_was_there():
    refusal = ClusterRefused("PATCH finetuneruns/blog/status: 422 status.progress.step: Invalid value")

    class Strict(Recorder):
        async def write_status(self, run: Run, status: FineTuneRunStatus) -> str:
            if status.attempts:
                raise refusal
            return await super().write_status(run, status)

    cluster = Strict()

    again = await one_pass(cluster)

    stalled = next(c for c in cluster.written["conditions"] if c["type"] == "Stalled")
    assert stalled["status"] == "True"
    assert "status.progress.step" in stalled["message"]
    assert again == 60


@pytest.mark.parametrize(
    ("others", "again"), [(0, 5), (100, 5), (1_000, 50), (5_000, 250)], ids=lambda value: str(value)
)
async def test_the_more_runs_are_followed_the_less_often_each_is_looked_at(others, again):
    cluster = Recorder(
        seen(a_job(Stage.DATASET, pod=a_pod(), log_tail=())),
        status=a_status(attempts=[an_attempt(Stage.DATASET)]).to_wire(),
    )
    cluster.body["spec"]["rollout"] = {"mode": "None"}
    reconciler = Reconciler(cluster, lambda: NOON)
    for number in range(others):
        key = RunKey("demo", str(number))
        reconciler.memory.keep(key, reconciler.memory.begin(key), cluster.body, "as read")

    assert await reconciler.reconcile(KEY) == pytest.approx(again, rel=0.01)


async def test_a_run_that_waits_for_a_retry_waits_no_longer_for_all_the_others():
    failed = an_attempt(Stage.DATASET, 0, "SourceUnavailable", failure_class=FailureClass.INFRASTRUCTURE)
    cluster = Recorder(seen(), status=a_status(attempts=[failed]).to_wire())
    cluster.body["spec"]["rollout"] = {"mode": "None"}
    reconciler = Reconciler(cluster, lambda: NOON)
    alone = await reconciler.reconcile(KEY)
    for number in range(5_000):
        key = RunKey("demo", str(number))
        reconciler.memory.keep(key, reconciler.memory.begin(key), cluster.body, "as read")

    assert await reconciler.reconcile(KEY) == alone


async def test_a_status_is_told_of_once_it_is_written_and_not_when_the_write_fails():
    told: list[tuple[str, str | None]] = []
    cluster = Recorder()
    reconciler = Reconciler(
        cluster, lambda: NOON, written=lambda key, before, after: told.append((str(key), after.phase))
    )

    cluster.write_error = StaleObject("somebody wrote")
    await reconciler.reconcile(KEY)
    assert told == []

    cluster.write_error = None
    await reconciler.reconcile(KEY)
    assert told == [("demo/blog", "BuildingDataset")]


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [({"spec": a_spec(colour="red")}, "InvalidRun"), ({}, "ClusterRefused")],
    ids=["spec", "action"],
)
async def test_what_only_a_person_can_help_with_is_told_of(changes, refusal):
    told: list[str] = []
    cluster = Recorder(**changes)
    cluster.apply_error = ClusterRefused("forbidden")

    await Reconciler(
        cluster, lambda: NOON, refusal=lambda error: told.append(type(error).__name__)
    ).reconcile(KEY)

    assert told == [refusal]


async def test_events_that_repeat_are_not_published_again():
    cluster = Recorder()
    reconciler = Reconciler(cluster, lambda: NOON)

    for _ in range(3):
        await reconciler.reconcile(KEY)

    assert cluster.calls.count("write at 5") == 3
    assert cluster.calls.count("publish") == 1


async def test_what_a_pass_logs_bears_its_run_though_the_line_does_not_name_it(caplog):
    class Talking(Recorder):
        async def read_children(self, run: Run) -> str:
            logging.getLogger("finetune_operator.cluster").warning("log not readable: pod=demo/blog-0")
            return await super().read_children(run)

    caplog.handler.setFormatter(JsonLines())

    await one_pass(Talking())

    assert json.loads(caplog.text.splitlines()[0])["run"] == "demo/blog"
