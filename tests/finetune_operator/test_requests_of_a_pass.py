"""How much a pass asks of the API server: a number for each state of a run, whatever else the cluster holds.

A look that an event calls for reads the run, its Jobs and its pods, and one that only time calls for reads nothing of
that again. Nothing grows with the number of runs, of other Jobs, or of attempts that ended.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from finetune_contract.run_status import (
    FineTuneRunStatus,
    ModelPointer,
    Phase,
    RolloutPhase,
    RolloutStatus,
)
from finetune_contract.stage_protocol import ProgressLine, Stage
from finetune_operator.child_names import job_name
from finetune_operator.children import Children, children_of
from finetune_operator.cluster import Cluster
from finetune_operator.observed import RunKey
from finetune_operator.reconcile import Reconciler
from tests.finetune_operator.samples import (
    ALL_STAGES,
    NEW_MODEL,
    UID,
    a_report,
    a_rollout,
    a_spec,
    a_status,
    an_attempt,
    at,
    later,
)

BLOG = RunKey("demo", "blog")
READ = ["GET finetuneruns/blog", "GET jobs", "GET pods"]


class Namespace:
    """One run with its children, and a count of what is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.run: dict[str, Any] = {}
        self.jobs: list[dict[str, Any]] = []
        self.pods: list[dict[str, Any]] = []
        self.deployment: dict[str, Any] = {}
        self.log = ""
        self.seconds = 1.0
        """Of the operator's clock, after noon."""

    def set_run(self, status: FineTuneRunStatus, **changes: Any) -> None:
        spec = a_spec(**({"rollout": {"mode": "None"}} | changes))
        metadata = {"name": "blog", "namespace": "demo", "uid": UID, "generation": 1, "resourceVersion": "7"}
        self.run = {"metadata": metadata, "spec": spec, "status": status.to_wire()}

    def add_job(self, stage: Stage, attempt: int = 0, *, suspended: bool = False, pod: bool = True) -> None:
        name = job_name("blog", UID, stage, attempt)
        labels = {"finetune-operator.io/stage": stage.value, "finetune-operator.io/attempt": str(attempt)}
        metadata = {"name": name, "namespace": "demo", "uid": f"job-{attempt}", "labels": labels}
        self.jobs.append({"metadata": metadata, "spec": {"suspend": suspended}, "status": {}})
        if pod:
            owner = {"batch.kubernetes.io/job-name": name}
            containers = [{"name": "stage", "state": {"running": {}}}]
            self.pods.append(
                {
                    "metadata": {"name": f"{name}-x", "labels": owner},
                    "status": {"containerStatuses": containers},
                }
            )

    async def handle(self, request: web.Request) -> web.Response:
        resource = request.path.split("/namespaces/demo/")[-1]
        self.asked.append(f"{request.method} {resource}")
        lists = {"jobs": self.jobs, "pods": self.pods, "services": []}
        if request.method == "GET" and resource == "deployments/chat" and self.deployment:
            return web.json_response(self.deployment)
        if request.method == "GET" and resource in lists:
            return web.json_response({"items": lists[resource]})
        if request.method == "GET" and resource == "finetuneruns/blog":
            return web.json_response(self.run)
        if resource.endswith("/log"):
            return web.Response(text=self.log)
        if request.method == "PATCH" and resource.endswith("/status"):
            body = json.loads(await request.text())
            metadata = self.run["metadata"]
            if body["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
                return web.json_response({"message": "changed", "reason": "Conflict"}, status=409)
            self.run["status"] = body["status"]
            metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
            return web.json_response(self.run)
        if request.method == "POST":
            return web.json_response({}, status=201)
        return web.json_response({"message": "not found"}, status=404)


def a_target_of(model: ModelPointer) -> dict[str, Any]:
    """Rolled out, with pods that are still to come."""
    fetch = [
        {"name": "MODEL_URI", "value": model.uri},
        {"name": "MODEL_MANIFEST_SHA256", "value": model.manifest_sha256},
    ]
    pod = {
        "initContainers": [{"name": "model-fetch", "env": fetch}],
        "containers": [{"name": "model-server", "env": [{"name": "MODEL_ID", "value": model.model_id}]}],
    }
    labels = {"app": "chat"}
    return {
        "metadata": {"name": "chat", "uid": "u", "generation": 1},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
        "status": {"observedGeneration": 1},
    }


@pytest.fixture
async def namespace() -> AsyncIterator[tuple[Namespace, Reconciler[Children]]]:
    held = Namespace()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", held.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with client.ApiClient(configuration) as api:
        yield held, Reconciler(Cluster(api, "trainer:1"), lambda: later(held.seconds))
    await runner.cleanup()


async def passes(reconciler: Reconciler[Children], held: Namespace, times: int = 1) -> list[str]:
    """What the last of some passes asked for that events called for."""
    for _ in range(times):
        reconciler.memory.forget(BLOG)
        held.asked.clear()
        await reconciler.reconcile(BLOG)
    return held.asked


async def passes_of_time(reconciler: Reconciler[Children], held: Namespace) -> list[str]:
    """What a pass asks for to which nothing has happened since the one before."""
    await reconciler.reconcile(BLOG)
    return await one_of_time(reconciler, held)


async def one_of_time(reconciler: Reconciler[Children], held: Namespace) -> list[str]:
    held.asked.clear()
    await reconciler.reconcile(BLOG)
    return held.asked


async def test_a_run_that_ended_costs_three_reads_where_a_job_of_it_goes_on(namespace):
    held, reconciler = namespace
    held.set_run(a_status(ALL_STAGES, phase=Phase.SUCCEEDED))

    assert sorted(await passes(reconciler, held)) == READ


async def test_starting_a_stage_makes_two_objects_and_writes_the_status_once(namespace):
    held, reconciler = namespace
    held.set_run(FineTuneRunStatus())

    asked = await passes(reconciler, held)

    assert sorted(asked[:3]) == READ
    assert asked[3:6] == ["POST configmaps", "POST jobs", "PATCH finetuneruns/blog/status"]
    assert set(asked[6:]) <= {"POST events"}


async def test_a_running_stage_costs_three_reads_and_one_log(namespace):
    held, reconciler = namespace
    held.set_run(a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN)]))
    held.add_job(Stage.DATASET)
    held.add_job(Stage.TRAIN)

    asked = await passes(reconciler, held, times=2)

    logs = [line for line in asked if line.endswith("/log")]
    assert sorted(line for line in asked if line not in logs) == READ
    assert len(logs) == 1


@pytest.mark.parametrize("phase", [RolloutPhase.PROGRESSING, RolloutPhase.VERIFYING])
async def test_a_rollout_costs_the_target_its_pods_its_services_and_its_record_besides(namespace, phase):
    held, reconciler = namespace
    rollout = RolloutStatus(
        phase=phase, target_uid="u", current=NEW_MODEL, patched_at=at(0), patched_generation=1
    )
    held.set_run(a_status(ALL_STAGES, rollout=rollout), rollout=a_rollout())
    held.deployment = a_target_of(NEW_MODEL)

    asked = await passes(reconciler, held, times=2)

    besides = ["GET configmaps/chat-model", "GET deployments/chat", "GET pods", "GET services"]
    assert sorted(asked) == sorted([*READ, *besides])


@pytest.mark.parametrize("attempts", [1, 15])
async def test_attempts_that_ended_cost_nothing_more(namespace, attempts):
    held, reconciler = namespace
    ended = [an_attempt(Stage.TRAIN, number, "Preempted") for number in range(attempts)]
    held.set_run(a_status((Stage.DATASET,), [*ended, an_attempt(Stage.TRAIN, attempts)]))
    for number in range(attempts + 1):
        held.add_job(Stage.TRAIN, number)

    assert len(await passes(reconciler, held, times=2)) == 4


async def test_a_job_that_waits_in_a_queue_costs_three_reads_where_there_is_no_kueue(namespace):
    held, reconciler = namespace
    held.set_run(a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN)]), scheduling={"queueName": "gpu"})
    held.add_job(Stage.TRAIN, suspended=True, pod=False)

    assert sorted(await passes(reconciler, held, times=3)) == READ


async def test_time_alone_makes_a_running_stage_cost_its_log(namespace):
    held, reconciler = namespace
    held.set_run(a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN)]))
    held.add_job(Stage.TRAIN)

    asked = await passes_of_time(reconciler, held)

    assert [line.rsplit("/", 1)[1] for line in asked] == ["log"]


async def test_time_alone_makes_a_run_that_waits_cost_nothing(namespace):
    held, reconciler = namespace
    held.set_run(a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN)]), scheduling={"queueName": "gpu"})
    held.add_job(Stage.TRAIN, suspended=True, pod=False)
    await reconciler.reconcile(BLOG)  # which asks once whether there is Kueue

    assert await passes_of_time(reconciler, held) == []


async def test_progress_costs_one_write_and_no_reading_before_or_after_it(namespace):
    held, reconciler = namespace
    held.set_run(a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN)]))
    held.add_job(Stage.TRAIN)
    await passes(reconciler, held)

    for step in (3, 4):
        line = ProgressLine(stage=Stage.TRAIN, step=step, total_steps=9, loss=1.0, time=at(step))
        held.log = line.to_line()
        asked = await one_of_time(reconciler, held)

        assert [line.rsplit("/", 1)[1] for line in asked] == ["log", "status"]
        assert held.run["status"]["progress"]["step"] == step


async def test_what_is_remembered_is_never_acted_on(namespace):
    """The Job is out of sight for long enough to be called gone, and nobody told that it is there."""
    held, reconciler = namespace
    held.set_run(a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN, started_at=at(0))]))
    await passes(reconciler, held, times=2)
    held.add_job(Stage.TRAIN)
    held.seconds = 100.0

    asked = await one_of_time(reconciler, held)

    assert asked[0] == "GET finetuneruns/blog"
    assert not [line for line in asked if line.startswith("POST jobs")]
    assert held.run["status"]["attempts"][-1]["result"] == "Running"


async def test_a_run_that_somebody_else_changed_is_read_again_before_anything_is_written(namespace):
    held, reconciler = namespace
    held.set_run(a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN)]))
    held.add_job(Stage.TRAIN)
    await passes(reconciler, held)
    held.run["metadata"]["resourceVersion"] = "99"
    held.log = ProgressLine(stage=Stage.TRAIN, step=3, total_steps=9, loss=1.0, time=at(3)).to_line()

    asked = await one_of_time(reconciler, held)

    refused = asked.index("PATCH finetuneruns/blog/status")
    assert sorted(asked[refused + 1 : refused + 4]) == READ
    assert held.run["status"]["progress"]["step"] == 3


async def test_after_a_start_the_first_look_at_a_run_on_its_way_asks_for_nothing(namespace):
    held, reconciler = namespace
    held.set_run(a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN)]))
    held.add_job(Stage.TRAIN)
    await passes(reconciler, held)
    listed(reconciler, held)

    assert await one_of_time(reconciler, held) == []
    assert [line.rsplit("/", 1)[1] for line in await one_of_time(reconciler, held)] == ["log"]


async def test_after_a_start_a_stage_that_ended_meanwhile_is_read_anew_before_the_next_begins(namespace):
    held, reconciler = namespace
    held.set_run(a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN)]))
    held.add_job(Stage.TRAIN)
    held.jobs[0]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    ended = {"terminated": {"exitCode": 0, "message": a_report(Stage.TRAIN).to_message()}}
    held.pods[0]["status"] = {"phase": "Succeeded", "containerStatuses": [{"name": "stage", "state": ended}]}
    listed(reconciler, held)

    asked = await one_of_time(reconciler, held)

    assert sorted(asked[:3]) == READ
    assert "POST jobs" in asked


def listed(reconciler: Reconciler[Children], held: Namespace) -> None:
    """As lists of everything leave it."""
    look = reconciler.memory.begin(BLOG)
    reconciler.memory.keep(BLOG, look, held.run, children_of(held.jobs, held.pods), listed=True)
