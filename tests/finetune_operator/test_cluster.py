"""The requests that go to the API server, and its errors as ours. A small HTTP server stands in for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from finetune_contract.run_status import FineTuneRunStatus, Phase, RolloutPhase, RolloutStatus
from finetune_contract.stage_protocol import ProgressLine, Stage, StepShare
from finetune_operator.actions import CreateJob, DeleteJob, PatchTarget, WriteRecord
from finetune_operator.api_server import translated
from finetune_operator.child_names import job_name
from finetune_operator.cluster import Cluster
from finetune_operator.errors import (
    ClusterRefused,
    ClusterUnavailable,
    CrdTooOld,
    FieldConflict,
    NotFound,
    OperatorError,
    StaleObject,
)
from finetune_operator.events import RunEvent
from finetune_operator.observed import Observed, Run, RunKey
from tests.finetune_operator.samples import (
    ALL_STAGES,
    DIGEST,
    KEY,
    NEW_MODEL,
    OLD_MODEL,
    UID,
    a_rollout,
    a_run,
    a_status,
    an_attempt,
    at,
)


async def observed_by(cluster: Cluster, run: Run) -> Observed:
    """A look with nothing remembered."""
    return await cluster.observe(run, await cluster.read_children(run))


RUNS = "/apis/finetune-operator.io/v1alpha1/namespaces/demo/finetuneruns"
Answer = tuple[int, Any]


class ApiServer:
    """Answers by method and path, and keeps every request."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer | Callable[[web.Request], Answer]] = {}
        self.requests: list[tuple[str, str, dict[str, str], str, Any]] = []
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.requests.append(
            (request.method, request.path, dict(request.query), request.headers.get("Content-Type", ""), body)
        )
        answer = self.answers.get((request.method, request.path), (404, {"message": "not found"}))
        status, content = answer(request) if callable(answer) else answer
        text = content if isinstance(content, str) else json.dumps(content)
        return web.Response(status=status, text=text)

    def paths(self) -> list[str]:
        return [f"{method} {path}" for method, path, *_ in self.requests]


@pytest.fixture
async def server() -> AsyncIterator[tuple[ApiServer, Cluster]]:
    api_server = ApiServer()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", api_server.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api_server.port = runner.addresses[0][1]
    configuration = client.Configuration(host=f"http://127.0.0.1:{api_server.port}")
    async with client.ApiClient(configuration) as api:
        yield api_server, Cluster(api, "trainer:1")
    await runner.cleanup()


async def test_a_status_is_applied_whole_and_guarded(server):
    api, cluster = server
    api.answers["PATCH", f"{RUNS}/blog/status"] = (200, {"metadata": {"resourceVersion": "8"}})

    version = await cluster.write_status(a_run(), FineTuneRunStatus(phase=Phase.TRAINING))

    assert version == "8"
    ((_, _, query, content_type, body),) = api.requests
    assert query == {"fieldManager": "finetune-operator", "force": "true"}
    assert content_type == "application/apply-patch+yaml"
    assert body["metadata"] == {"name": "blog", "resourceVersion": "7"}
    assert body["status"]["phase"] == "Training"


@pytest.mark.parametrize("code", [400, 500])
async def test_a_crd_that_lacks_a_field_of_the_status_is_named_with_its_remedy(server, code):
    api, cluster = server
    words = "failed to create typed patch object (demo/blog): .status.phase: field not declared in schema"
    api.answers["PATCH", f"{RUNS}/blog/status"] = (code, {"message": words})

    with pytest.raises(CrdTooOld, match=r"FineTuneRun is older than this operator; apply .*\.status\.phase"):
        await cluster.write_status(a_run(), FineTuneRunStatus(phase=Phase.TRAINING))


async def test_a_run_that_is_gone_is_none(server):
    _, cluster = server

    assert await cluster.read_run(RunKey("demo", "blog")) is None


async def test_lists_are_read_page_by_page(server):
    api, cluster = server

    def page(request: web.Request) -> Answer:
        if "continue" in request.query:
            return 200, {"items": [{"n": 2}], "metadata": {}}
        return 200, {"items": [{"n": 1}], "metadata": {"continue": "more"}}

    api.answers["GET", RUNS] = page

    assert await cluster.list_runs("demo") == [{"n": 1}, {"n": 2}]


async def test_all_namespaces_are_listed_in_one_go(server):
    api, cluster = server
    api.answers["GET", "/apis/finetune-operator.io/v1alpha1/finetuneruns"] = (200, {"items": [{"n": 1}]})

    assert await cluster.list_runs("*") == [{"n": 1}]


async def test_starting_a_job_makes_the_run_file_first_and_twice_is_once(server):
    api, cluster = server
    exists = (409, {"message": "already exists", "reason": "AlreadyExists"})
    api.answers["POST", "/api/v1/namespaces/demo/configmaps"] = exists
    api.answers["POST", "/apis/batch/v1/namespaces/demo/jobs"] = exists

    await cluster.apply(a_run(), (CreateJob(Stage.TRAIN, 0, KEY, DIGEST),))

    assert api.paths() == [
        "POST /api/v1/namespaces/demo/configmaps",
        "POST /apis/batch/v1/namespaces/demo/jobs",
    ]
    image = api.requests[1][4]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "trainer:1"


async def test_the_pods_of_several_nodes_get_their_service_before_they_are_made(server):
    api, cluster = server
    for kind in ("configmaps", "services"):
        api.answers["POST", f"/api/v1/namespaces/demo/{kind}"] = (201, {})
    api.answers["POST", "/apis/batch/v1/namespaces/demo/jobs"] = (201, {})
    run = a_run(resources={"train": {"gpu": {"nodes": 2}}})

    await cluster.apply(run, (CreateJob(Stage.TRAIN, 0, KEY, DIGEST),))

    assert [path.rsplit("/", 1)[1] for path in api.paths()] == ["configmaps", "services", "jobs"]


async def test_stopping_a_job_takes_its_pods_with_it_and_a_missing_one_is_fine(server):
    api, cluster = server
    api.answers["DELETE", "/apis/batch/v1/namespaces/demo/jobs/here"] = (200, {})

    await cluster.apply(a_run(), (DeleteJob("here"), DeleteJob("gone")))

    assert api.requests[0][4]["propagationPolicy"] == "Foreground"
    assert len(api.requests) == 2


@pytest.mark.parametrize(("force", "said"), [(False, "false"), (True, "true")])
async def test_the_target_is_patched_with_force_only_where_the_run_asks_for_it(server, force, said):
    api, cluster = server
    api.answers["PATCH", "/apis/apps/v1/namespaces/demo/deployments/chat"] = (200, {})

    await cluster.apply(a_run(), (PatchTarget("chat", {"kind": "Deployment"}, force),))

    ((_, _, query, content_type, _),) = api.requests
    assert query == {"fieldManager": "finetune-operator", "force": said}
    assert content_type == "application/apply-patch+yaml"


async def test_of_pods_that_share_a_sweep_every_log_is_read_and_their_steps_are_added_up(server):
    api, cluster = server
    attempt = an_attempt(Stage.TRAIN)
    labels = {"finetune-operator.io/stage": "train", "finetune-operator.io/attempt": "0"}
    job = {"metadata": {"name": attempt.job, "labels": labels}}
    pods = []
    for index in ("0", "1"):
        own = {
            "batch.kubernetes.io/job-name": attempt.job,
            "batch.kubernetes.io/job-completion-index": index,
        }
        state = {"containerStatuses": [{"name": "stage", "state": {"running": {}}}]}
        pods.append({"metadata": {"name": f"p{index}", "labels": own}, "status": state})
        line = ProgressLine(
            stage=Stage.TRAIN, step=4, total_steps=6, share=StepShare(from_step=1, steps_of_all=12)
        )
        api.answers["GET", f"/api/v1/namespaces/demo/pods/p{index}/log"] = (
            200,
            f"{line.to_line()}\nword {index}",
        )
    api.answers["GET", "/apis/batch/v1/namespaces/demo/jobs"] = (200, {"items": [job]})
    api.answers["GET", "/api/v1/namespaces/demo/pods"] = (200, {"items": pods})

    sweep = {"sweep": {"rank": [8, 16], "parallelism": 2}}
    observed = await observed_by(cluster, a_run(a_status(attempts=[attempt]), training=sweep))

    words, line_of_all = observed.jobs[0].log_tail or ("", "")
    assert words == "word 0"
    assert (found := ProgressLine.parse(line_of_all)) is not None
    assert (found.step, found.total_steps) == (8, 12)


async def test_observing_reads_the_runs_children_by_uid_and_the_log_of_a_running_attempt(server):
    api, cluster = server
    attempt = an_attempt(Stage.DATASET)
    labels = {"finetune-operator.io/stage": "dataset", "finetune-operator.io/attempt": "0"}
    pod = {
        "metadata": {"name": "p", "labels": {"batch.kubernetes.io/job-name": attempt.job}},
        "status": {"containerStatuses": [{"name": "stage", "state": {"running": {}}}]},
    }
    job = {"metadata": {"name": attempt.job, "labels": labels}}
    api.answers["GET", "/apis/batch/v1/namespaces/demo/jobs"] = (200, {"items": [job]})
    api.answers["GET", "/api/v1/namespaces/demo/pods"] = (200, {"items": [pod]})
    api.answers["GET", "/api/v1/namespaces/demo/pods/p/log"] = (200, "one\ntwo\n")

    observed = await observed_by(cluster, a_run(a_status(attempts=[attempt])))

    assert observed.jobs[0].log_tail == ("one", "two")
    selectors = {query["labelSelector"] for _, _, query, *_ in api.requests if "labelSelector" in query}
    assert selectors == {f"finetune-operator.io/run-uid={UID}"}
    assert not any("deployments" in path for path in api.paths())


async def test_a_pod_that_outlives_its_job_is_seen_with_a_job_that_is_being_deleted(server):
    """`kubectl delete job` takes the Job first, and leaves its pod the time to save a checkpoint."""
    api, cluster = server
    attempt = an_attempt(Stage.TRAIN)
    labels = {"finetune-operator.io/stage": "train", "finetune-operator.io/attempt": "0"}
    own = labels | {"batch.kubernetes.io/job-name": attempt.job}
    pod = {"metadata": {"name": "p", "labels": own}, "status": {"phase": "Running"}}
    api.answers["GET", "/apis/batch/v1/namespaces/demo/jobs"] = (200, {"items": []})
    api.answers["GET", "/api/v1/namespaces/demo/pods"] = (200, {"items": [pod]})

    (job,) = (await observed_by(cluster, a_run(a_status(attempts=[attempt])))).jobs

    assert job.name == attempt.job
    assert job.deleting
    assert [found.name for found in job.pods] == ["p"]


async def test_a_job_that_ended_while_its_pod_was_read_is_judged_by_the_pod_as_it_is_now(server):
    """Both are asked for at once, and a busy API server may answer them seconds apart."""
    api, cluster = server
    attempt = an_attempt(Stage.DATASET)
    labels = {"finetune-operator.io/stage": "dataset", "finetune-operator.io/attempt": "0"}
    conditions = [{"type": "Complete", "status": "True"}]
    job = {"metadata": {"name": attempt.job, "labels": labels}, "status": {"conditions": conditions}}
    states = [{"running": {}}, {"terminated": {"exitCode": 0, "message": "the report"}}]

    def pods(request: web.Request) -> Answer:
        state = states[min(len([path for path in api.paths() if path.endswith("/pods")]), 2) - 1]
        return 200, {
            "items": [
                {
                    "metadata": {"name": "p", "labels": {"batch.kubernetes.io/job-name": attempt.job}},
                    "status": {
                        "phase": "Running" if "running" in state else "Succeeded",
                        "containerStatuses": [{"name": "stage", "state": state}],
                    },
                }
            ]
        }

    api.answers["GET", "/apis/batch/v1/namespaces/demo/jobs"] = (200, {"items": [job]})
    api.answers["GET", "/api/v1/namespaces/demo/pods"] = pods

    observed = await observed_by(cluster, a_run(a_status(attempts=[attempt])))

    container = observed.jobs[0].pods[0].container("stage")
    assert container is not None
    assert container.terminated is not None
    assert container.terminated.message == "the report"
    assert observed.jobs[0].log_tail is None, "nobody needs the log of what ended well"


def a_suspended_job(api: ApiServer) -> None:
    labels = {"finetune-operator.io/stage": "train", "finetune-operator.io/attempt": "0"}
    job = {
        "metadata": {
            "name": an_attempt(Stage.TRAIN).job,
            "namespace": "demo",
            "uid": "job-1",
            "labels": labels,
        },
        "spec": {"suspend": True},
    }
    api.answers["GET", "/apis/batch/v1/namespaces/demo/jobs"] = (200, {"items": [job]})
    api.answers["GET", "/api/v1/namespaces/demo/pods"] = (200, {"items": []})


def a_queued_run() -> Run:
    status = a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN)])
    return a_run(status, scheduling={"queueName": "gpu"}, rollout={"mode": "None"})


WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/namespaces/demo/workloads"


async def test_a_job_that_kueue_holds_back_says_why_in_kueues_words(server):
    api, cluster = server
    a_suspended_job(api)
    condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "1 more needed"}
    workload = {"metadata": {"name": "w"}, "status": {"conditions": [condition]}}
    api.answers["GET", "/apis/kueue.x-k8s.io"] = (200, {"preferredVersion": {"version": "v1beta2"}})
    api.answers["GET", WORKLOADS] = (200, {"items": [workload]})

    first, second = await observed_by(cluster, a_queued_run()), await observed_by(cluster, a_queued_run())

    assert first.jobs[0].suspended
    assert first.jobs[0].queue_words == second.jobs[0].queue_words == "Pending: 1 more needed"
    assert [query.get("labelSelector") for _, path, query, *_ in api.requests if path == WORKLOADS] == [
        "kueue.x-k8s.io/job-uid=job-1"
    ] * 2
    assert api.paths().count("GET /apis/kueue.x-k8s.io") == 1


@pytest.mark.parametrize("answer", [(404, {"message": "none"}), (403, {"message": "forbidden"})])
async def test_without_kueue_or_the_right_to_ask_it_the_job_is_only_suspended(server, answer):
    api, cluster = server
    a_suspended_job(api)
    api.answers["GET", "/apis/kueue.x-k8s.io"] = (200, {"preferredVersion": {"version": "v1beta2"}})
    api.answers["GET", WORKLOADS] = answer

    observed = await observed_by(cluster, a_queued_run())

    assert observed.jobs[0].suspended
    assert observed.jobs[0].queue_words == ""


async def test_a_run_without_a_queue_never_asks_for_kueue(server):
    api, cluster = server
    a_suspended_job(api)

    await observed_by(
        cluster, a_run(a_status((Stage.DATASET,), [an_attempt(Stage.TRAIN)]), rollout={"mode": "None"})
    )

    assert not any("kueue" in path for path in api.paths())


async def test_more_of_the_log_is_read_once_the_container_has_ended(server):
    api, cluster = server
    job = {
        "metadata": {
            "name": "blog-49df072f-train-0",
            "labels": {"finetune-operator.io/stage": "train", "finetune-operator.io/attempt": "0"},
        }
    }
    pod = {
        "metadata": {"name": "p", "labels": {"batch.kubernetes.io/job-name": "blog-49df072f-train-0"}},
        "status": {"containerStatuses": [{"name": "stage", "state": {"terminated": {"exitCode": 33}}}]},
    }
    api.answers["GET", "/apis/batch/v1/namespaces/demo/jobs"] = (200, {"items": [job]})
    api.answers["GET", "/api/v1/namespaces/demo/pods"] = (200, {"items": [pod]})
    api.answers["GET", "/api/v1/namespaces/demo/pods/p/log"] = (200, "")
    run = a_run(a_status(attempts=[an_attempt(Stage.TRAIN)]), rollout={"mode": "None"})

    await observed_by(cluster, run)

    (query,) = [query for _, path, query, *_ in api.requests if path.endswith("/log")]
    assert query["tailLines"] == "200"


async def test_a_log_that_cannot_be_read_does_not_stop_the_pass(server):
    api, cluster = server
    attempt = an_attempt(Stage.DATASET)
    labels = {"finetune-operator.io/stage": "dataset", "finetune-operator.io/attempt": "0"}
    pod = {
        "metadata": {"name": "p", "labels": {"batch.kubernetes.io/job-name": attempt.job}},
        "status": {"containerStatuses": [{"name": "stage", "state": {"running": {}}}]},
    }
    job = {"metadata": {"name": attempt.job, "labels": labels}}
    api.answers["GET", "/apis/batch/v1/namespaces/demo/jobs"] = (200, {"items": [job]})
    api.answers["GET", "/api/v1/namespaces/demo/pods"] = (200, {"items": [pod]})
    api.answers["GET", "/api/v1/namespaces/demo/pods/p/log"] = (500, {"message": "kubelet is down"})

    observed = await observed_by(cluster, a_run(a_status(attempts=[attempt])))

    assert observed.jobs[0].log_tail is None


async def test_before_the_first_job_the_patch_is_rehearsed_and_a_conflict_seen(server):
    api, cluster = server
    for path in ("/apis/batch/v1/namespaces/demo/jobs", "/api/v1/namespaces/demo/pods"):
        api.answers["GET", path] = (200, {"items": []})
    containers = {
        "initContainers": [{"name": "model-fetch"}],
        "containers": [{"name": "model-server", "readinessProbe": {"tcpSocket": {"port": 1}}}],
    }
    chat = "/apis/apps/v1/namespaces/demo/deployments/chat"
    api.answers["GET", chat] = (
        200,
        {"metadata": {"name": "chat", "uid": "u"}, "spec": {"template": {"spec": containers}}},
    )
    cause = {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "argocd-controller" using apps/v1',
        "field": ".spec.x",
    }
    api.answers["PATCH", chat] = (409, {"message": "Apply failed", "details": {"causes": [cause]}})

    observed = await observed_by(cluster, a_run())

    assert api.requests[-1][2]["dryRun"] == "All"
    assert observed.refusal is not None
    assert (observed.refusal.owner, observed.refusal.field) == ("argocd-controller", ".spec.x")


async def test_a_sibling_that_is_rolling_out_to_the_same_target_is_seen(server):
    api, cluster = server
    for path in ("/apis/batch/v1/namespaces/demo/jobs", "/api/v1/namespaces/demo/pods"):
        api.answers["GET", path] = (200, {"items": []})
    chat = "/apis/apps/v1/namespaces/demo/deployments/chat"
    api.answers["GET", chat] = (200, {"metadata": {"name": "chat", "uid": "u"}, "spec": {}})

    def sibling(name: str, uid: str, target: str, phase: str) -> dict[str, Any]:
        spec = {"rollout": {"target": {"deployment": {"name": target}}}}
        status = {"rollout": {"phase": phase}}
        return {"metadata": {"name": name, "uid": uid, "namespace": "demo"}, "spec": spec, "status": status}

    done, elsewhere = sibling("a", "1", "chat", "Succeeded"), sibling("b", "2", "shop", "Progressing")
    myself, rolling = sibling("blog", UID, "chat", "Progressing"), sibling("c", "3", "chat", "Verifying")
    run = a_run(a_status(ALL_STAGES))

    api.answers["GET", RUNS] = (200, {"items": [done, elsewhere, myself]})
    assert (await observed_by(cluster, run)).rolling_run == ""
    api.answers["GET", RUNS] = (200, {"items": [done, rolling]})
    assert (await observed_by(cluster, run)).rolling_run == "c"


def a_target(name: str = "chat", uid: str = "u", model: str = "") -> dict[str, Any]:
    env = [{"name": "MODEL_ID", "value": model}] if model else []
    pod = {
        "initContainers": [{"name": "model-fetch"}],
        "containers": [{"name": "model-server", "readinessProbe": {"httpGet": {}}, "env": env}],
    }
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    return {
        "metadata": {"name": name, "uid": uid},
        "spec": {"template": template, "selector": {"matchLabels": {"app": name}}},
    }


def without_probe(target: dict[str, Any]) -> dict[str, Any]:
    target["spec"]["template"]["spec"]["containers"][0].pop("readinessProbe")
    return target


def an_idle_namespace(api: ApiServer, *targets: dict[str, Any]) -> None:
    for path in ("/apis/batch/v1/namespaces/demo/jobs", "/api/v1/namespaces/demo/pods", RUNS):
        api.answers["GET", path] = (200, {"items": []})
    for target in targets:
        name = target["metadata"]["name"]
        api.answers["GET", f"/apis/apps/v1/namespaces/demo/deployments/{name}"] = (200, target)
        api.answers["PATCH", f"/apis/apps/v1/namespaces/demo/deployments/{name}"] = (200, {})


def rolling_run(phase: RolloutPhase, **spec: Any) -> Run:
    rollout = RolloutStatus(phase=phase, current=NEW_MODEL, previous=OLD_MODEL, patched_at=at(0))
    return a_run(a_status(ALL_STAGES, rollout=rollout), rollout=a_rollout(**spec))


@pytest.mark.parametrize("phase", [RolloutPhase.PROGRESSING, RolloutPhase.VERIFYING])
async def test_the_targets_service_is_asked_while_it_changes_and_while_it_is_watched(server, phase):
    api, cluster = server
    an_idle_namespace(api, a_target())
    port = {"port": api.port, "targetPort": 8000}
    service = {"clusterIP": "127.0.0.1", "selector": {"app": "chat"}, "ports": [port]}
    api.answers["GET", "/api/v1/namespaces/demo/services"] = (
        200,
        {"items": [{"metadata": {"name": "site"}, "spec": service}]},
    )
    api.answers["GET", "/readyz"] = (200, {"model": NEW_MODEL.model_id})

    for _ in range(100):
        facts = (await observed_by(cluster, rolling_run(phase))).service
        if facts and (facts.switching.answered or facts.watched.answered):
            break
        await asyncio.sleep(0.02)
    await cluster.close()

    assert facts is not None
    counted = facts.watched if phase is RolloutPhase.VERIFYING else facts.switching
    assert facts.name == "site"
    assert dict(counted.named) == {NEW_MODEL.model_id: counted.answered}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((200, {"items": []}), "no Service selects the pods of deployment/chat"),
        ((403, {"message": "forbidden"}), "Services may not be listed, upgrade the operator's Role"),
    ],
)
async def test_a_service_that_is_not_there_or_may_not_be_looked_for_is_told(server, answer, problem):
    api, cluster = server
    an_idle_namespace(api, a_target())
    api.answers["GET", "/api/v1/namespaces/demo/services"] = answer

    facts = (await observed_by(cluster, rolling_run(RolloutPhase.PROGRESSING))).service

    assert facts is not None
    assert facts.name == ""
    assert problem in facts.problem


async def test_the_named_service_is_that_of_the_first_target_alone(server):
    api, cluster = server
    an_idle_namespace(api, a_target("chat"), a_target("shop"))
    api.answers["GET", "/api/v1/namespaces/demo/services"] = (200, {"items": []})
    row = {"deployment": {"name": "chat", "others": ["shop"]}}
    run = rolling_run(RolloutPhase.PROGRESSING, target=row, service={"name": "front"})
    assert run.status.rollout is not None
    second = run.status.rollout.model_copy(update={"done": ["chat"]})

    first = (await observed_by(cluster, run)).service
    after_it = (
        await observed_by(cluster, replace(run, status=run.status.model_copy(update={"rollout": second})))
    ).service

    assert first is not None
    assert after_it is not None
    assert '"front" (spec.rollout.service.name) does not exist' in first.problem
    assert "no Service selects the pods of deployment/shop" in after_it.problem


async def test_what_the_record_keeps_back_is_read_with_it(server):
    api, cluster = server
    an_idle_namespace(api, a_target())
    data = {"HISTORY": "[]", f"QUARANTINED.{'a' * 64}": '{"run": "before"}'}
    api.answers["GET", "/api/v1/namespaces/demo/configmaps/chat-model"] = (200, {"data": data})

    observed = await observed_by(cluster, a_run(a_status(ALL_STAGES)))

    assert [entry.run for entry in observed.quarantine] == ["before"]
    assert observed.recorded == data


@pytest.mark.parametrize(
    ("first", "second", "seen"),
    [
        (a_target("chat", "u1"), a_target("shop", "u2"), None),
        (a_target("chat", "new"), a_target("shop", "u2"), "chat"),
        (a_target("chat", "u1"), a_target("shop", "new"), "shop"),
        (a_target("chat", "new", "sha256:mine"), a_target("shop", "new"), "shop"),
        (a_target("chat", "new"), a_target("shop", "new"), "chat"),
        (without_probe(a_target("chat", "new")), a_target("shop", "new"), "shop"),
        (without_probe(a_target("chat", "new")), a_target("shop", "u2"), "chat"),
    ],
)
async def test_of_an_ended_row_the_target_that_lost_its_model_and_can_take_it_is_seen_with_its_record(
    server, first, second, seen
):
    api, cluster = server
    an_idle_namespace(api, first, second)
    rollout = RolloutStatus(
        phase=RolloutPhase.SUCCEEDED,
        target="deployment/shop",
        target_uid="u2",
        current=NEW_MODEL,
        done=["chat", "shop"],
        done_uids={"chat": "u1", "shop": "u2"},
    )
    row = {"deployment": {"name": "chat", "others": ["shop"]}}
    status = a_status(ALL_STAGES, rollout=rollout, phase=Phase.SUCCEEDED)

    record = f"/api/v1/namespaces/demo/configmaps/{seen}-model"
    api.answers["GET", record] = (200, {"data": {"MODEL_ID": NEW_MODEL.model_id}})

    observed = await observed_by(cluster, a_run(status, rollout=a_rollout(target=row)))

    assert (observed.target.name if observed.target else None) == seen
    assert observed.recorded == ({"MODEL_ID": NEW_MODEL.model_id} if seen else {})
    assert (f"GET {record}" in api.paths()) is bool(seen)


def a_crashed_pod(name: str, container: str, message: str = "") -> dict[str, Any]:
    crashed = {"exitCode": 1, "reason": "Error", "message": message}
    state = {
        "name": container,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": crashed},
    }
    return {"metadata": {"name": name}, "status": {"containerStatuses": [state]}}


async def test_a_model_server_that_crashed_without_a_message_is_quoted_from_its_log_and_others_are_not(
    server,
):
    api, cluster = server
    rollout = RolloutStatus(phase=RolloutPhase.PROGRESSING, current=NEW_MODEL, previous=OLD_MODEL)
    run = a_run(a_status(ALL_STAGES, rollout=rollout))
    template = {"spec": {"containers": [{"name": "model-server"}]}}
    selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["chat"]}]}
    api.answers["GET", "/apis/apps/v1/namespaces/demo/deployments/chat"] = (
        200,
        {"metadata": {"name": "chat", "uid": "u"}, "spec": {"template": template, "selector": selector}},
    )
    pods = [
        a_crashed_pod("mute", "model-server"),
        a_crashed_pod("web", "web"),
        a_crashed_pod("told", "model-server", "why"),
    ]
    api.answers["GET", "/apis/batch/v1/namespaces/demo/jobs"] = (200, {"items": []})
    api.answers["GET", "/api/v1/namespaces/demo/pods"] = lambda request: (
        200,
        {"items": pods if request.query["labelSelector"] == "app in (chat)" else []},
    )
    api.answers["GET", "/api/v1/namespaces/demo/pods/mute/log"] = (200, "loading\nno such file\n")

    observed = await observed_by(cluster, run)

    said = [pod.containers[0].last_terminated for pod in observed.target_pods]
    assert [end.message if end else None for end in said] == ["loading | no such file", "", "why"]
    logs = [query for _, path, query, *_ in api.requests if path.endswith("/log")]
    assert logs == [
        {"container": "model-server", "tailLines": "3", "limitBytes": "65536", "previous": "true"}
    ]


@pytest.mark.parametrize(
    ("answer", "bytes_"),
    [
        ((200, {"status": {"capacity": {"storage": "1Gi"}}}), 2**30),
        ((403, {"message": "forbidden"}), None),
        ((404, {"message": "not found"}), None),
    ],
)
async def test_the_claim_that_models_are_put_into_is_read_before_the_patch_where_it_may_be(
    server, answer, bytes_
):
    api, cluster = server
    for path in ("/apis/batch/v1/namespaces/demo/jobs", "/api/v1/namespaces/demo/pods", RUNS):
        api.answers["GET", path] = (200, {"items": []})
    fetch = {"name": "model-fetch", "volumeMounts": [{"name": "models", "mountPath": "/models"}]}
    pod = {
        "initContainers": [fetch],
        "containers": [{"name": "model-server"}],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "cache"}}],
    }
    api.answers["GET", "/apis/apps/v1/namespaces/demo/deployments/chat"] = (
        200,
        {"metadata": {"name": "chat", "uid": "u"}, "spec": {"template": {"spec": pod}}},
    )
    api.answers["GET", "/api/v1/namespaces/demo/persistentvolumeclaims/cache"] = answer

    observed = await observed_by(cluster, a_run(a_status(ALL_STAGES)))

    assert observed.target is not None
    assert [volume.limit_bytes for volume in observed.target.shape.volumes] == [bytes_]


async def test_the_record_of_a_model_is_applied_server_side(server):
    api, cluster = server
    path = "/api/v1/namespaces/demo/configmaps/chat-model"
    api.answers["PATCH", path] = (200, {})
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "chat-model"}, "data": {}}

    await cluster.apply(a_run(), [WriteRecord(manifest)])

    ((_, _, query, content_type, body),) = api.requests
    assert (query["fieldManager"], content_type) == ("finetune-operator", "application/apply-patch+yaml")
    assert body == manifest


async def test_a_missing_target_is_seen_with_what_is_there_instead(server):
    api, cluster = server
    for path in ("/apis/batch/v1/namespaces/demo/jobs", "/api/v1/namespaces/demo/pods"):
        api.answers["GET", path] = (200, {"items": []})
    api.answers["GET", "/apis/apps/v1/namespaces/demo/deployments"] = (
        200,
        {"items": [{"metadata": {"name": "shop"}}]},
    )

    observed = await observed_by(cluster, a_run())

    assert observed.target is None
    assert observed.deployments == ("shop",)


async def test_an_event_that_is_refused_is_only_logged(server, caplog):
    api, cluster = server
    api.answers["POST", "/api/v1/namespaces/demo/events"] = (403, {"message": "forbidden"})

    await cluster.publish(a_run(), (RunEvent("Running", "started"),), at(0))

    assert "event lost" in caplog.text


async def test_an_api_server_that_is_not_there_is_unavailable():
    async with client.ApiClient(client.Configuration(host="http://127.0.0.1:9")) as api:
        with pytest.raises(ClusterUnavailable, match="GET /apis"):
            await Cluster(api, "x").list_runs("demo")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"message": "gone"}, NotFound),
        (409, {"message": "the object has been modified"}, StaleObject),
        (403, {"message": "forbidden"}, ClusterRefused),
        (422, {"message": "invalid"}, ClusterRefused),
        (
            500,
            {"message": "failed to create typed patch object: .spec.x: field not declared"},
            ClusterRefused,
        ),
        (500, {"message": "etcdserver: leader changed"}, ClusterUnavailable),
        (429, {"message": "too many requests"}, ClusterUnavailable),
        (401, {"message": "Unauthorized"}, ClusterUnavailable),
        (
            409,
            {
                "details": {
                    "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "kubectl"'}]
                }
            },
            FieldConflict,
        ),
    ],
)
def test_every_answer_of_the_api_server_has_its_error(status, body, kind):
    error = translated(status, json.dumps(body), "PATCH /x")

    assert type(error) is kind
    assert isinstance(error, OperatorError)
    assert "PATCH /x" in str(error)


def test_an_answer_that_is_no_json_is_an_error_too():
    assert isinstance(translated(502, "<html>bad gateway</html>", "GET /x"), ClusterUnavailable)


async def test_a_job_that_a_busy_quota_did_not_let_in_is_not_taken_for_one_that_was_there(server):
    api, cluster = server
    words = 'Operation cannot be fulfilled on resourcequotas "jobs": the object has been modified'
    api.answers["POST", "/api/v1/namespaces/demo/configmaps"] = (201, {})
    api.answers["POST", "/apis/batch/v1/namespaces/demo/jobs"] = (
        409,
        {"message": words, "reason": "Conflict"},
    )

    with pytest.raises(ClusterUnavailable, match="resourcequotas"):
        await cluster.apply(a_run(), (CreateJob(Stage.TRAIN, 0, KEY, DIGEST),))


async def test_a_node_that_does_not_answer_is_not_asked_for_a_log(server):
    api, cluster = server
    name = job_name("blog", UID, Stage.DATASET, 0)
    labels = {"finetune-operator.io/stage": "dataset", "finetune-operator.io/attempt": "0"}
    container = {"name": "stage", "ready": True, "state": {"running": {}}}
    pod = {
        "metadata": {"name": "pod-1", "labels": {"batch.kubernetes.io/job-name": name}},
        "spec": {"nodeName": "dead"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [container],
        },
    }
    api.answers["GET", "/apis/batch/v1/namespaces/demo/jobs"] = (
        200,
        {"items": [{"metadata": {"name": name, "labels": labels}}]},
    )
    api.answers["GET", "/api/v1/namespaces/demo/pods"] = (200, {"items": [pod]})

    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]), rollout={"mode": "None"})
    observed = await observed_by(cluster, run)

    assert observed.jobs[0].log_tail is None
    assert not [path for path in api.paths() if path.endswith("/log")]


async def test_an_answer_that_is_cut_off_is_no_answer(server):
    api, cluster = server
    api.answers["GET", RUNS] = (200, '{"items": [')

    with pytest.raises(ClusterUnavailable, match=RUNS):
        await cluster.list_runs("demo")
