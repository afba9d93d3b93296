"""The ConfigMap, the Service and the Job of a run, as plain dictionaries. Pure: values in, dict out, no client.

A Job is created once and never applied again: Kueue and others own parts of it afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any

from finetune_contract.stage_protocol import (
    CONTAINER_NAME,
    ENV_TRAINER_IMAGE,
    ENV_TRAINING_OVERLAY,
    RUN_FILE,
    RUN_FILE_KEY,
    WORK_FOLDER,
    ExitCode,
    RunFile,
    Stage,
)
from finetune_operator import side_by_side
from finetune_operator.actions import CreateJob
from finetune_operator.api_group import (
    ANNOTATION_RUN,
    API_VERSION,
    KIND,
    LABEL_ATTEMPT,
    LABEL_KUEUE_QUEUE,
    LABEL_RUN,
    LABEL_RUN_UID,
    LABEL_STAGE,
)
from finetune_operator.child_names import config_map_name, job_name, run_label, service_name
from finetune_operator.kueue import MAY_START_WITH_ONE
from finetune_operator.observed import Run
from finetune_operator.stages import STAGE_BY_NAME, StageDefinition
from finetune_operator.training_group import (
    TrainingGroup,
    environment,
    group_of,
    service,
    spread_over_nodes,
)

SHORTEST_TTL_SECONDS = 600
"""A finished Job stays so long at least: an operator that was away must find how it ended."""
STOPPED_CODES = frozenset({ExitCode.PREEMPTED.value, 143})
"""A stage that was told to stop ends so: by itself, or by SIGTERM before it could listen."""
USER_ID = 65532
TEMPORARY_FOLDER_SIZE = "1Gi"

Manifest = dict[str, Any]


def config_map(run: Run) -> Manifest:
    """The run file, immutable: every attempt of every stage reads the same words."""
    run_file = RunFile(name=run.name, namespace=run.namespace, uid=run.uid, spec=run.spec_as_written)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": config_map_name(run.name, run.uid), **_metadata(run)},
        "immutable": True,
        "data": {RUN_FILE_KEY: json.dumps(run_file.to_wire(), indent=2, ensure_ascii=False) + "\n"},
    }


def service_of(run: Run, start: CreateJob) -> Manifest | None:
    """The Service by which the pods of the attempt find each other; None when there is one pod alone."""
    group = group_of(run, start.stage)
    return service(run, start.stage, _metadata(run)) if group and group.spans_nodes else None


def job(run: Run, start: CreateJob, trainer_image: str) -> Manifest:
    """The Job of one attempt.

    Args:
        trainer_image: the operator's own setting; the spec's comes first.
    """
    definition = STAGE_BY_NAME[start.stage]
    labels = attempt_labels(run, start.stage.value, start.attempt)
    annotations = {ANNOTATION_RUN: run.name}
    group = group_of(run, start.stage)
    shares = side_by_side.shares(run.spec, start.stage)
    pods = group.nodes if group else shares
    queue = run.spec.scheduling.queue_name if definition.uses_gpu else None
    manifest: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(run.name, run.uid, start.stage, start.attempt),
            "namespace": run.namespace,
            "labels": labels | ({LABEL_KUEUE_QUEUE: queue} if queue else {}),
            "annotations": annotations | (MAY_START_WITH_ONE if queue and shares > 1 else {}),
            "ownerReferences": [owner(run)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": pods,
            "parallelism": pods,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _pod_failure_policy(alone=pods == shares, queued=bool(queue)),
            "ttlSecondsAfterFinished": max(SHORTEST_TTL_SECONDS, run.spec.ttl_seconds_after_finished),
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": _pod(run, definition, start, run.spec.trainer_image or trainer_image, group),
            },
        },
    }
    if queue:
        manifest["spec"]["suspend"] = True
    if pods > 1:
        manifest["spec"]["completionMode"] = "Indexed"
    return manifest


def _metadata(run: Run) -> Manifest:
    """Of what belongs to the run as a whole, without the name."""
    return {
        "namespace": run.namespace,
        "labels": _run_labels(run),
        "ownerReferences": [owner(run)],
    }


def attempt_labels(run: Run, stage: str, attempt: int) -> dict[str, str]:
    """By which a Job and its pods are found."""
    return {**_run_labels(run), LABEL_STAGE: stage, LABEL_ATTEMPT: str(attempt)}


def _run_labels(run: Run) -> dict[str, str]:
    return {LABEL_RUN: run_label(run.name, run.uid), LABEL_RUN_UID: run.uid}


def owner(run: Run) -> Manifest:
    """What belongs to the run goes with it."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _pod_failure_policy(*, alone: bool, queued: bool) -> Manifest:
    """Every exit code that we know ends the Job under its number; what Kubernetes did to the pod does not count.

    Args:
        alone: a pod that was taken away is replaced. One of a group is not: the others hang without it.
        queued: Kueue may suspend the Job, which stops its pods; it goes on when Kueue lets it. Kubernetes judges the
            pods of a suspended Job by these rules too: without the second one it would fail (seen with 1.37).
    """
    codes = {code.value for code in ExitCode if code is not ExitCode.OK}
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    rules: list[Manifest] = [
        {"action": "Ignore" if alone else "FailJob", "onPodConditions": [disrupted]},
    ]
    if queued:
        codes -= STOPPED_CODES
        rules.append(_on_exit("Ignore", STOPPED_CODES))
    return {"rules": [*rules, _on_exit("FailJob", codes)]}


def _on_exit(action: str, codes: Collection[int]) -> Manifest:
    values = sorted(codes)
    return {
        "action": action,
        "onExitCodes": {"containerName": CONTAINER_NAME, "operator": "In", "values": values},
    }


def _pod(
    run: Run, definition: StageDefinition, start: CreateJob, image: str, group: TrainingGroup | None
) -> Manifest:
    resources = run.spec.resources.train if definition.uses_gpu else run.spec.resources.other
    run_folder = str(PurePosixPath(RUN_FILE).parent)
    pod: Manifest = {
        "restartPolicy": "Never",
        # of the pod, not of the Job: it counts from the node on, and not while it waits for one
        "activeDeadlineSeconds": run.spec.policy.stage_deadline_seconds,
        "terminationGracePeriodSeconds": definition.grace_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER_NAME,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": _command(definition, start),
                "env": _environment(run, definition, start, image, group),
                "resources": _resources(run, definition),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                "volumeMounts": [
                    {"name": "run", "mountPath": run_folder, "readOnly": True},
                    {"name": "work", "mountPath": WORK_FOLDER},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount in the pod
                    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a mount in the pod
                ],
            }
        ],
        "volumes": [
            {"name": "run", "configMap": {"name": config_map_name(run.name, run.uid)}},
            {"name": "work", "emptyDir": {"sizeLimit": resources.scratch}},
            {"name": "tmp", "emptyDir": {"sizeLimit": TEMPORARY_FOLDER_SIZE}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": resources.shared_memory}},
        ],
    }
    if run.spec.service_account_name:
        pod["serviceAccountName"] = run.spec.service_account_name
    if definition.uses_gpu:
        _schedule(pod, run)
    if group and group.spans_nodes:
        pod["subdomain"] = service_name(run.uid, start.stage)
        pod["affinity"] = spread_over_nodes(run, start.attempt)
    return pod


def _environment(
    run: Run, definition: StageDefinition, start: CreateJob, image: str, group: TrainingGroup | None
) -> list[Manifest]:
    """Credentials by reference; and no way to Hugging Face for a stage whose base model lies in the store."""
    entries: list[Manifest] = [
        {"name": secret.env, "valueFrom": {"secretKeyRef": {"name": secret.secret, "key": secret.key}}}
        for secret in definition.secrets(run.spec)
    ]
    if definition.needs_key and start.base_model:
        entries.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    if start.stage is Stage.PACKAGE:
        entries.append({"name": ENV_TRAINER_IMAGE, "value": image})
    if start.overlay is not None:
        entries.append({"name": ENV_TRAINING_OVERLAY, "value": start.overlay.to_json()})
    if group:
        entries += environment(run, start.stage, start.attempt, group)
    return entries


def _command(definition: StageDefinition, start: CreateJob) -> list[str]:
    command = ["finetune-stage", start.stage.value, "--run", RUN_FILE]
    if definition.needs_key:
        command += ["--run-key", start.run_key, "--dataset-digest", start.dataset_digest]
        if start.base_model:
            command += ["--base-model", start.base_model]
    return command


def _resources(run: Run, definition: StageDefinition) -> Manifest:
    """Requests equal limits, but CPU has no limit: a throttled stage only takes longer."""
    resources = run.spec.resources.train if definition.uses_gpu else run.spec.resources.other
    requests: Manifest = {"cpu": resources.cpu, "memory": resources.memory}
    limits: Manifest = {"memory": resources.memory}
    if definition.uses_gpu and resources.gpu is not None:
        count = str(resources.gpu.count if definition.spreads else 1)
        requests[resources.gpu.resource_name] = count
        limits[resources.gpu.resource_name] = count
    return {"requests": requests, "limits": limits}


def _schedule(pod: Manifest, run: Run) -> None:
    scheduling = run.spec.scheduling
    if scheduling.node_selector:
        pod["nodeSelector"] = dict(scheduling.node_selector)
    if scheduling.tolerations:
        pod["tolerations"] = [toleration.to_wire() for toleration in scheduling.tolerations]
    if scheduling.priority_class_name:
        pod["priorityClassName"] = scheduling.priority_class_name
    if scheduling.runtime_class_name:
        pod["runtimeClassName"] = scheduling.runtime_class_name
