"""Jobs without nodes: makes a pod for each Job, lets it run, and ends both when the benchmark says so, as KWOK does.

Also the kubelet that the API server asks for a pod's log, and the reader that counts how far the runs are.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web

from benchmarks.operator_scale_cluster import NAMESPACE
from finetune_contract.stage_protocol import (
    DatasetFacts,
    EvaluationFacts,
    ModelFacts,
    ProgressLine,
    Stage,
    StageReport,
    TrainingFacts,
)

RUNS = f"/apis/finetune-operator.io/v1alpha1/namespaces/{NAMESPACE}/finetuneruns"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
ENDED = "job-ended"
"""Field manager of the patch that ends a Job, by which the audit log tells it from the others."""
LABEL_RUN, LABEL_STAGE = "finetune-operator.io/run", "finetune-operator.io/stage"
LIMITS = {"limit": "500"}
STEPS = 1000
AT_ONCE = 16

Json = dict[str, Any]


def report(stage: Stage) -> str:
    """What a stage leaves behind that went well."""
    digest = "d" * 64
    facts: dict[Stage, Json] = {
        Stage.DATASET: {
            "dataset": DatasetFacts(
                digest=digest, run_key="c" * 64, documents=44, training_examples=800, evaluation_examples=80
            )
        },
        Stage.TRAIN: {"training": TrainingFacts(steps=STEPS, final_loss=0.4)},
        Stage.PACKAGE: {"model": ModelFacts(uri="s3://models/x", manifest_sha256="a" * 64, size_bytes=1)},
        Stage.EVALUATE: {"evaluation": EvaluationFacts(passed=True, gate="passed")},
    }
    return StageReport(stage=stage, **facts[stage]).to_message()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Api:
    """The API server, asked by the simulator."""

    def __init__(self, server: str, tls: ssl.SSLContext) -> None:
        connector = aiohttp.TCPConnector(ssl=tls, limit=64)
        self._session = aiohttp.ClientSession(server, connector=connector)

    async def close(self) -> None:
        await self._session.close()

    async def send(self, method: str, path: str, body: Json | None = None, **query: str) -> Json:
        """One request; 404 and 409 are answers too."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with self._session.request(
            method, path, params=query, json=body, headers={"Content-Type": kind}
        ) as reply:
            answer: Json = await reply.json(content_type=None)
            if reply.status >= 400 and reply.status not in (404, 409):
                raise SystemExit(f"{method} {path}: {reply.status} {str(answer)[:400]}")
            return answer

    async def watch(self, path: str, selector: str = "") -> AsyncIterator[tuple[str, Json]]:
        """Everything that is there and then every change, for ever."""
        version = "0"
        while True:
            query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
            timeout = aiohttp.ClientTimeout(total=None)
            try:
                async with self._session.get(
                    path, params=query | ({"labelSelector": selector} if selector else {}), timeout=timeout
                ) as reply:
                    async for line in _lines(reply):
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            version = "0"
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        yield event["type"], event["object"]
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(1)


async def _lines(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length."""
    left = b""
    async for chunk in reply.content.iter_any():
        parts = (left + chunk).split(b"\n")
        left = parts.pop()
        for part in parts:
            yield part


class Simulator:
    """Jobs of the runs, and how long each stage takes."""

    def __init__(self, api: Api, seconds: Callable[[Stage], float | None]) -> None:
        """`seconds` says how long a Job of the stage runs; None: until `end_next` is called."""
        self._api = api
        self._seconds = seconds
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self.running: dict[str, Json] = {}
        """Jobs that run until they are told to end, oldest first."""
        self.made: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.problems: list[str] = []

    async def run(self) -> None:
        """Until cancelled."""
        seen: set[str] = set()
        async for kind, job in self._api.watch(JOBS, LABEL_STAGE):
            uid = job["metadata"].get("uid", "")
            if kind == "ADDED" and uid not in seen:
                seen.add(uid)
                self._begin(self._live(job))
            elif kind == "DELETED":
                seen.discard(uid)

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.problems.append(f"{type(error).__name__} {error}")

    async def _live(self, job: Json) -> None:
        stage = job["metadata"]["labels"][LABEL_STAGE]
        self.made[stage] += 1
        async with self._turns:
            await self._start(job)
        seconds = self._seconds(Stage(stage))
        if seconds is None:
            self.running[job["metadata"]["name"]] = job
            return
        await asyncio.sleep(seconds)
        await self.end(job)

    def end_next(self) -> bool:
        """End the Job that has waited longest; False when none waits."""
        name = next(iter(self.running), None)
        if name is None:
            return False
        self._begin(self.end(self.running.pop(name)))
        return True

    async def _start(self, job: Json) -> None:
        name, template = job["metadata"]["name"], job["spec"]["template"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": template["metadata"]
            | {"name": f"{name}-0", "ownerReferences": [owner | {"controller": True}]},
            "spec": template["spec"] | {"nodeName": "node"},
        }
        await self._api.send("POST", PODS, pod)
        conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready")]
        running = {
            "name": "stage",
            "ready": True,
            "started": True,
            "state": {"running": {"startedAt": _now()}},
        }
        status = {"phase": "Running", "conditions": conditions, "containerStatuses": [_container(running)]}
        await self._api.send("PATCH", f"{PODS}/{name}-0/status", {"status": status})
        status = {"active": 1, "ready": 1, "startTime": _now()}
        await self._api.send("PATCH", f"{JOBS}/{name}/status", {"status": status})

    async def end(self, job: Json) -> None:
        """Its pod ends well, and the Job with it."""
        async with self._turns:
            name, stage = job["metadata"]["name"], job["metadata"]["labels"][LABEL_STAGE]
            ended = {
                "exitCode": 0,
                "reason": "Completed",
                "message": report(Stage(stage)),
                "finishedAt": _now(),
            }
            container = {"name": "stage", "ready": False, "state": {"terminated": ended}}
            status: Json = {"phase": "Succeeded", "containerStatuses": [_container(container)]}
            await self._api.send("PATCH", f"{PODS}/{name}-0/status", {"status": status})
            conditions = [
                {"type": kind, "status": "True", "lastTransitionTime": _now()}
                for kind in ("SuccessCriteriaMet", "Complete")
            ]
            status = {
                "active": 0,
                "ready": 0,
                "succeeded": 1,
                "completionTime": _now(),
                "conditions": conditions,
            }
            await self._api.send("PATCH", f"{JOBS}/{name}/status", {"status": status}, fieldManager=ENDED)
            self.ended[stage] += 1


def _container(facts: Json) -> Json:
    return {"image": "trainer:1", "imageID": "", "restartCount": 0} | facts


class Phases:
    """How many runs are in each phase, by a watch of our own."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.of: dict[str, str] = {}

    async def run(self) -> None:
        async for kind, run in self._api.watch(RUNS):
            if kind in ("ADDED", "MODIFIED"):
                self.of[run["metadata"]["name"]] = (run.get("status") or {}).get("phase") or ""
            elif kind == "DELETED":
                self.of.pop(run["metadata"]["name"], None)

    def count(self) -> Counter[str]:
        return Counter(self.of.values())


@asynccontextmanager
async def kubelet(port: int, tls: ssl.SSLContext) -> AsyncIterator[None]:
    """Answers for the logs of all pods: one step a second."""
    began = time.monotonic()

    async def log(request: web.Request) -> web.Response:
        stage = next(
            (stage for stage in Stage if f"-{stage.value}-" in request.match_info["pod"]), Stage.TRAIN
        )
        step = int(time.monotonic() - began) % STEPS
        line = ProgressLine(
            stage=stage, step=step, total_steps=STEPS, loss=1.0, eta_seconds=STEPS - step, time=_now()
        )
        return web.Response(text=f"a word\n{line.to_line()}\n")

    application = web.Application()
    application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", log)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    try:
        yield
    finally:
        await runner.cleanup()
