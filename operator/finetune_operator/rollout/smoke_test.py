"""The model is tried in a Job beside the target before the target is changed: its manifest, and what came of it. Pure.

The Job has the target's own model-fetch and model server, with their images, flags, limits and credentials. Nothing
else of the target runs in it, and no Service selects it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import ModelPointer, Reason
from finetune_contract.stage_protocol import (
    ENV_GOLDEN_QUESTIONS,
    ENV_SMOKE_MIN_RIGHT,
    ENV_SMOKE_QUESTIONS,
    ENV_SMOKE_SECONDS,
    SmokeExitCode,
)
from finetune_operator.actions import CreateSmokeTest
from finetune_operator.api_group import (
    ANNOTATION_RUN,
    SMOKE_TEST,
)
from finetune_operator.child_names import smoke_test_name
from finetune_operator.job_manifest import SHORTEST_TTL_SECONDS, attempt_labels, owner
from finetune_operator.observed import DeploymentFacts, PodFacts, Run, SmokeJob
from finetune_operator.rollout.patch import MODEL_ID, MODEL_MANIFEST_SHA256, MODEL_URI
from finetune_operator.rollout.progress import Failed, Waiting, pod_trouble
from finetune_operator.rollout.target_shape import TargetShape
from finetune_operator.timestamps import seconds_since

NO_POD_PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 60.0
"""After a Job that told nothing about the model."""
SERVER_PORT = "MODEL_SERVER_PORT"
GRACE_SECONDS = 10
CANNOT_START = frozenset(
    {
        Reason.UNSCHEDULABLE,
        Reason.IMAGE_PULL_FAILED,
        Reason.SECRET_NOT_FOUND,
        Reason.STORE_UNAVAILABLE,
    }
)
"""Causes that say nothing about the model."""
KEPT_POD_FIELDS = (
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "hostAliases",
    "imagePullSecrets",
    "nodeSelector",
    "priorityClassName",
    "resourceClaims",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
    "tolerations",
)
"""Where and as whom the target's pods run. Not among them: what the target's own pods have to do with each other."""
LEFT_OUT_OF_CONTAINERS = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle")
"""Whether the server is ready is what the smoke test finds out."""

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Passed:
    """The model answered; `message` says how well."""

    message: str


@dataclass(frozen=True)
class Inconclusive:
    """It could not be tried; nothing is known of the model."""

    message: str


Outcome = Passed | Failed | Inconclusive | Waiting


def smoke_test(
    run: Run, target: DeploymentTarget, deployment: DeploymentFacts, wanted: ModelPointer, attempt: int
) -> CreateSmokeTest:
    """The Job that fetches, serves and asks the model."""
    pod = deployment.pod_spec
    labels = attempt_labels(run, SMOKE_TEST, attempt)
    annotations = {ANNOTATION_RUN: run.name}
    fetch = _container(pod, target.fetch_container)
    server = _container(pod, target.server_container)
    values = {MODEL_URI: wanted.uri, MODEL_MANIFEST_SHA256: wanted.manifest_sha256}
    served = {MODEL_ID: wanted.model_id}
    containers = [
        fetch | {"env": _with_values(fetch, values)},
        server | {"env": _with_values(server, served), "restartPolicy": "Always"},
    ]
    affinity = (pod.get("affinity") or {}).get("nodeAffinity")
    name = smoke_test_name(run.name, run.uid, attempt)
    return CreateSmokeTest(
        name,
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": run.namespace,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner(run)],
            },
            "spec": {
                "backoffLimit": 0,
                "podReplacementPolicy": "Failed",
                "ttlSecondsAfterFinished": SHORTEST_TTL_SECONDS,
                "template": {
                    "metadata": {"labels": labels, "annotations": annotations},
                    "spec": {
                        **{field: pod[field] for field in KEPT_POD_FIELDS if field in pod},
                        **({"affinity": {"nodeAffinity": affinity}} if affinity else {}),
                        "restartPolicy": "Never",
                        "terminationGracePeriodSeconds": GRACE_SECONDS,
                        # of the pod: it counts from the node on. Fetching may take as long as asking.
                        "activeDeadlineSeconds": 2 * run.spec.rollout.timeout_seconds,
                        "initContainers": containers,
                        "containers": [_asking(run, fetch, server, served)],
                        "volumes": _volumes(pod, (fetch, server)),
                    },
                },
            },
        },
    )


def outcome(target: DeploymentTarget, shape: TargetShape, job: SmokeJob, now: datetime) -> Outcome:
    """What a Job has told so far."""
    pod = job.pods[-1] if job.pods else None
    if (ended := job.ended) is not None:
        words = ended.message.strip()
        if ended.exit_code == SmokeExitCode.PASSED:
            return Passed(words or "passed")
        if ended.exit_code in (SmokeExitCode.TOO_MANY_WRONG, SmokeExitCode.NOT_SERVED):
            return Failed(Reason.SMOKE_TEST_FAILED, words)
        return Inconclusive(
            f'container "{SMOKE_TEST}" of Job {job.name} ended with exit code {ended.exit_code} '
            f"({ended.reason or 'no reason given'}): {words}"
        )
    if job.complete:
        return Passed("passed")
    trouble = pod_trouble(target, pod, shape, job.created_at, now) if pod else None
    if isinstance(trouble, Failed):
        return Inconclusive(trouble.message) if trouble.reason in CANNOT_START else trouble
    if job.over:
        return Inconclusive(f"Job {job.name} failed: {job.failed_message or job.failed_reason}")
    if trouble is not None:
        return trouble
    if pod is not None:
        return Waiting(_doing(target, pod))
    if job.suspended:
        return Inconclusive(f"Job {job.name} is suspended; release it from its queue")
    if seconds_since(job.created_at, now) >= NO_POD_PATIENCE_SECONDS:
        return Inconclusive(
            f"Job {job.name} has made no pod; see `kubectl describe job {job.name}` for quota and admission"
        )
    return Waiting("its pod is being made")


def _doing(target: DeploymentTarget, pod: PodFacts) -> str:
    asking, fetching = pod.container(SMOKE_TEST), pod.container(target.fetch_container)
    if asking is not None and asking.running:
        return "the model is loaded and asked"
    if fetching is not None and fetching.running:
        return "the model is fetched"
    return "its pod starts"


def _asking(run: Run, fetch: Manifest, server: Manifest, served: Mapping[str, str]) -> Manifest:
    """In the image, with the credentials and under the rules of model-fetch."""
    evaluation, wanted = run.status.evaluation, run.spec.rollout.smoke_test
    report = evaluation.report_uri if evaluation else ""
    port = {entry["name"]: entry.get("value") for entry in server.get("env") or ()}.get(SERVER_PORT)
    values = {
        **served,
        **({SERVER_PORT: port} if port else {}),
        ENV_GOLDEN_QUESTIONS: report.rpartition("/")[0],
        ENV_SMOKE_QUESTIONS: str(wanted.questions),
        ENV_SMOKE_MIN_RIGHT: str(wanted.min_right),
        ENV_SMOKE_SECONDS: str(run.spec.rollout.timeout_seconds),
    }
    return {
        **{field: value for field, value in fetch.items() if field != "args"},
        "name": SMOKE_TEST,
        "command": ["finetune-smoke-test"],
        "env": _with_values(fetch, values),
    }


def _container(pod: Mapping[str, Any], name: str) -> Manifest:
    everyone = (*(pod.get("initContainers") or ()), *(pod.get("containers") or ()))
    found = copy.deepcopy(next(entry for entry in everyone if entry["name"] == name))
    for port in found.get("ports") or ():
        port.pop("hostPort", None)
    return {
        field: value
        for field, value in found.items()
        if field not in (*LEFT_OUT_OF_CONTAINERS, "restartPolicy")
    }


def _with_values(container: Mapping[str, Any], values: Mapping[str, str]) -> list[Manifest]:
    others = [entry for entry in container.get("env") or () if entry["name"] not in values]
    return [*others, *({"name": name, "value": value} for name, value in values.items())]


def _volumes(pod: Mapping[str, Any], containers: tuple[Manifest, ...]) -> list[Manifest]:
    """Those that are mounted; in place of a claim, which the target's pods hold, an empty folder."""
    mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts") or ()}
    return [
        {"name": volume["name"], "emptyDir": {}} if "persistentVolumeClaim" in volume else dict(volume)
        for volume in pod.get("volumes") or ()
        if volume["name"] in mounted
    ]
