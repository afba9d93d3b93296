"""The ConfigMap and the Job of a run, as plain dictionaries. Pure: values in, dict out, no client.

A Job is created once and never applied again: Kueue and others own parts of it afterwards.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from finetune_contract.run_spec import StageResources
from finetune_contract.stage_protocol import (
    CONTAINER_NAME,
    RUN_FILE,
    RUN_FILE_KEY,
    WORK_FOLDER,
    ExitCode,
    RunFile,
)
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
from finetune_operator.child_names import config_map_name, job_name, run_label
from finetune_operator.observed import Run
from finetune_operator.stages import STAGE_BY_NAME, StageDefinition

USER_ID = 65532
TEMPORARY_FOLDER_SIZE = "1Gi"

Manifest = dict[str, Any]


def config_map(run: Run) -> Manifest:
    """The run file, immutable: every attempt of every stage reads the same words."""
    run_file = RunFile(name=run.name, namespace=run.namespace, uid=run.uid, spec=run.spec_as_written)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": config_map_name(run.name, run.uid),
            "namespace": run.namespace,
            "labels": {LABEL_RUN: run_label(run.name, run.uid), LABEL_RUN_UID: run.uid},
            "ownerReferences": [_owner(run)],
        },
        "immutable": True,
        "data": {RUN_FILE_KEY: json.dumps(run_file.to_wire(), indent=2, ensure_ascii=False) + "\n"},
    }


def job(run: Run, start: CreateJob, trainer_image: str) -> Manifest:
    """The Job of one attempt.

    Args:
        trainer_image: the operator's own setting; the spec's comes first.
    """
    definition = STAGE_BY_NAME[start.stage]
    labels = {
        LABEL_RUN: run_label(run.name, run.uid),
        LABEL_RUN_UID: run.uid,
        LABEL_STAGE: start.stage.value,
        LABEL_ATTEMPT: str(start.attempt),
    }
    annotations = {ANNOTATION_RUN: run.name}
    job_labels = dict(labels)
    if definition.uses_gpu and run.spec.scheduling.queue_name:
        job_labels[LABEL_KUEUE_QUEUE] = run.spec.scheduling.queue_name
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(run.name, run.uid, start.stage, start.attempt),
            "namespace": run.namespace,
            "labels": job_labels,
            "annotations": annotations,
            "ownerReferences": [_owner(run)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": _pod_failure_policy(),
            "activeDeadlineSeconds": run.spec.policy.stage_deadline_seconds,
            "ttlSecondsAfterFinished": run.spec.ttl_seconds_after_finished,
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": _pod(run, definition, start, run.spec.trainer_image or trainer_image),
            },
        },
    }


def _owner(run: Run) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _pod_failure_policy() -> Manifest:
    """A pod that Kubernetes took away is replaced; every exit code that we know ends the Job under its number."""
    codes = sorted(code.value for code in ExitCode if code is not ExitCode.OK)
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {
                "action": "FailJob",
                "onExitCodes": {"containerName": CONTAINER_NAME, "operator": "In", "values": codes},
            },
        ]
    }


def _pod(run: Run, definition: StageDefinition, start: CreateJob, image: str) -> Manifest:
    resources = run.spec.resources.train if definition.uses_gpu else run.spec.resources.other
    run_folder = str(PurePosixPath(RUN_FILE).parent)
    pod: Manifest = {
        "restartPolicy": "Never",
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
                "env": [
                    {
                        "name": secret.env,
                        "valueFrom": {"secretKeyRef": {"name": secret.secret, "key": secret.key}},
                    }
                    for secret in definition.secrets(run.spec)
                ],
                "resources": _resources(resources, with_gpu=definition.uses_gpu),
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
    if definition.uses_gpu:
        _schedule(pod, run)
    return pod


def _command(definition: StageDefinition, start: CreateJob) -> list[str]:
    command = ["finetune-stage", start.stage.value, "--run", RUN_FILE]
    if definition.needs_key:
        command += ["--run-key", start.run_key, "--dataset-digest", start.dataset_digest]
    return command


def _resources(resources: StageResources, *, with_gpu: bool) -> Manifest:
    """Requests equal limits, but CPU has no limit: a throttled stage only takes longer."""
    requests: Manifest = {"cpu": resources.cpu, "memory": resources.memory}
    limits: Manifest = {"memory": resources.memory}
    if with_gpu and resources.gpu is not None:
        count = str(resources.gpu.count)
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
