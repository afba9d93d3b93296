"""How much a pass asks of the API server: a number for each state of a run, whatever else the cluster holds.

A pass that runs and one that waits are the two that are made again and again: each reads the run, its Jobs and its
pods. Nothing grows with the number of runs, of other Jobs, or of attempts that ended.
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
from finetune_contract.stage_protocol import Stage
from finetune_operator.child_names import job_name
from finetune_operator.cluster import Cluster
from finetune_operator.observed import RunKey
from finetune_operator.reconcile import Reconciler
from tests.finetune_operator.samples import (
    ALL_STAGES,
    NEW_MODEL,
    UID,
    a_rollout,
    a_spec,
    a_status,
    an_attempt,
    at,
    later,
)

READ = ["GET finetuneruns/blog", "GET jobs", "GET pods"]


class Namespace:
    """One run with its children, and a count of what is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.run: dict[str, Any] = {}
        self.jobs: list[dict[str, Any]] = []
        self.pods: list[dict[str, Any]] = []
        self.deployment: dict[str, Any] = {}

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
            return web.Response(text="")
        if request.method == "PATCH" and resource.endswith("/status"):
            self.run["status"] = json.loads(await request.text())["status"]
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
async def namespace() -> AsyncIterator[tuple[Namespace, Reconciler]]:
    held = Namespace()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", held.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with client.ApiClient(configuration) as api:
        yield held, Reconciler(Cluster(api, "trainer:1"), lambda: later(1))
    await runner.cleanup()


async def passes(reconciler: Reconciler, held: Namespace, times: int = 1) -> list[str]:
    """What the last of some passes asked for."""
    for _ in range(times):
        held.asked.clear()
        await reconciler.reconcile(RunKey("demo", "blog"))
    return held.asked


async def test_a_run_that_ended_costs_one_read(namespace):
    held, reconciler = namespace
    held.set_run(a_status(ALL_STAGES, phase=Phase.SUCCEEDED))

    assert await passes(reconciler, held) == ["GET finetuneruns/blog"]


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
