"""The Job and the ConfigMap, field by field."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest

from finetune_contract.stage_protocol import RunFile, Stage
from finetune_operator import job_manifest
from finetune_operator.actions import CreateJob
from tests.finetune_operator.samples import DIGEST, KEY, UID, a_run

IMAGE = "registry.example.org/trainer@sha256:1"
GPU_CHANGES: dict[str, Any] = {
    "resources": {
        "train": {
            "cpu": "8",
            "memory": "32Gi",
            "gpu": {"count": 1},
            "sharedMemory": "2Gi",
            "scratch": "60Gi",
        },
        "other": {"cpu": "2", "memory": "8Gi"},
    },
    "scheduling": {
        "nodeSelector": {"gpu": "l4"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "batch",
        "queueName": "gpu-queue",
    },
    "policy": {"stageDeadlineSeconds": 7200},
    "ttlSecondsAfterFinished": 3600,
}


def a_job(stage: Stage, **changes: Any) -> dict[str, Any]:
    return job_manifest.job(a_run(**changes), CreateJob(stage, 1, KEY, DIGEST), IMAGE)


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod


def test_a_gpu_training_job_is_exactly_this():
    labels = {
        "finetune-operator.io/run": "blog",
        "finetune-operator.io/run-uid": UID,
        "finetune-operator.io/stage": "train",
        "finetune-operator.io/attempt": "1",
    }
    owner = {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneRun",
        "name": "blog",
        "uid": UID,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    known_codes = [10, 11, 12, 13, 14, 15, 20, 21, 22, 30, 31, 32, 33, 70]

    assert a_job(Stage.TRAIN, **GPU_CHANGES) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "blog-49df072f-train-1",
            "namespace": "demo",
            "labels": labels | {"kueue.x-k8s.io/queue-name": "gpu-queue"},
            "annotations": {"finetune-operator.io/run": "blog"},
            "ownerReferences": [owner],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "stage", "operator": "In", "values": known_codes},
                    },
                ]
            },
            "activeDeadlineSeconds": 7200,
            "ttlSecondsAfterFinished": 3600,
            "template": {
                "metadata": {"labels": labels, "annotations": {"finetune-operator.io/run": "blog"}},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 120,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "nodeSelector": {"gpu": "l4"},
                    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                    "priorityClassName": "batch",
                    "containers": [
                        {
                            "name": "stage",
                            "image": IMAGE,
                            "imagePullPolicy": "IfNotPresent",
                            "command": [
                                "finetune-stage",
                                "train",
                                "--run",
                                "/etc/finetune/run.json",
                                "--run-key",
                                KEY,
                                "--dataset-digest",
                                DIGEST,
                            ],
                            "env": [
                                {
                                    "name": "AWS_ACCESS_KEY_ID",
                                    "valueFrom": {"secretKeyRef": {"name": "s3", "key": "accessKeyId"}},
                                },
                                {
                                    "name": "AWS_SECRET_ACCESS_KEY",
                                    "valueFrom": {"secretKeyRef": {"name": "s3", "key": "secretAccessKey"}},
                                },
                            ],
                            "resources": {
                                "requests": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"},
                                "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"},
                            },
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                                "readOnlyRootFilesystem": True,
                            },
                            "volumeMounts": [
                                {"name": "run", "mountPath": "/etc/finetune", "readOnly": True},
                                {"name": "work", "mountPath": "/work"},
                                {"name": "tmp", "mountPath": "/tmp"},
                                {"name": "shm", "mountPath": "/dev/shm"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "run", "configMap": {"name": "blog-49df072f-run"}},
                        {"name": "work", "emptyDir": {"sizeLimit": "60Gi"}},
                        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
                        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
                    ],
                },
            },
        },
    }


@pytest.mark.parametrize("stage", list(Stage))
def test_every_job_is_valid_for_the_api_server(stage):
    kubernetes_validate.validate(a_job(stage, **GPU_CHANGES), "1.37", strict=True)


@pytest.mark.parametrize("stage", [Stage.DATASET, Stage.PACKAGE])
def test_cpu_stages_never_hold_a_gpu_nor_wait_for_one(stage):
    manifest = a_job(stage, **GPU_CHANGES)

    assert "nvidia.com/gpu" not in json.dumps(manifest)
    assert "nodeSelector" not in pod_of(manifest)
    assert "kueue.x-k8s.io/queue-name" not in manifest["metadata"]["labels"]
    assert pod_of(manifest)["containers"][0]["resources"]["requests"] == {"cpu": "2", "memory": "8Gi"}


def test_evaluation_runs_on_the_gpu_too():
    assert pod_of(a_job(Stage.EVALUATE, **GPU_CHANGES))["containers"][0]["resources"]["limits"] == {
        "memory": "32Gi",
        "nvidia.com/gpu": "1",
    }


def test_the_dataset_stage_gets_every_credential_and_no_run_key():
    container = pod_of(a_job(Stage.DATASET))["containers"][0]

    assert container["command"] == ["finetune-stage", "dataset", "--run", "/etc/finetune/run.json"]
    assert [entry["name"] for entry in container["env"]] == [
        "WORDPRESS_USERNAME_BLOG",
        "WORDPRESS_PASSWORD_BLOG",
        "WEAVIATE_API_KEY",
        "HF_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    ]
    assert all("valueFrom" in entry for entry in container["env"])


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.PACKAGE, Stage.EVALUATE])
def test_later_stages_get_the_stores_credentials_only(stage):
    names = [entry["name"] for entry in pod_of(a_job(stage))["containers"][0]["env"]]

    assert names == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


def test_a_pod_with_a_cloud_identity_gets_no_credentials():
    env = pod_of(a_job(Stage.TRAIN, store={"s3": {"bucket": "models"}}))["containers"][0]["env"]

    assert env == []


def test_the_runs_own_image_comes_before_the_operators():
    assert pod_of(a_job(Stage.TRAIN, trainerImage="mine:1"))["containers"][0]["image"] == "mine:1"


def test_the_run_file_is_immutable_owned_and_holds_the_spec_as_written():
    manifest = job_manifest.config_map(a_run())

    run_file = RunFile.model_validate_json(manifest["data"]["run.json"])
    assert manifest["immutable"] is True
    assert manifest["metadata"]["name"] == "blog-49df072f-run"
    assert manifest["metadata"]["ownerReferences"][0]["uid"] == UID
    assert (run_file.name, run_file.namespace, run_file.uid) == ("blog", "demo", UID)
    assert run_file.spec == a_run().spec_as_written
    kubernetes_validate.validate(manifest, "1.37", strict=True)
