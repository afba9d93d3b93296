"""The Job and the ConfigMap, field by field."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest

from finetune_contract.stage_protocol import ExitCode, RunFile, Stage, TrainingOverlay
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
        "runtimeClassName": "nvidia",
    },
    "serviceAccountName": "trainer",
    "policy": {"stageDeadlineSeconds": 7200},
    "ttlSecondsAfterFinished": 3600,
}


SEVERAL_NODES = {
    "resources": {"train": {"gpu": {"count": 8, "nodes": 2}}, "other": {"cpu": "2", "memory": "8Gi"}}
}
QUEUED = {"scheduling": {"queueName": "gpu-queue"}}
SIDE_BY_SIDE = {
    "training": {"sweep": {"rank": [4, 8, 16], "parallelism": 16}},
    "resources": {"train": {"gpu": {"count": 1}}},
}
MAY_START_WITH_ONE = "kueue.x-k8s.io/job-min-parallelism"


def a_job(stage: Stage, **changes: Any) -> dict[str, Any]:
    return job_manifest.job(a_run(**changes), CreateJob(stage, 1, KEY, DIGEST), IMAGE)


def actions_of(manifest: dict[str, Any]) -> dict[str, str]:
    """What the Job does about each exit code, and about a disruption."""
    return {
        str(what): rule["action"]
        for rule in manifest["spec"]["podFailurePolicy"]["rules"]
        for what in [
            *rule.get("onExitCodes", {}).get("values", []),
            *(condition["type"] for condition in rule.get("onPodConditions", [])),
        ]
    }


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
            "labels": labels,
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
            "ttlSecondsAfterFinished": 3600,
            "template": {
                "metadata": {"labels": labels, "annotations": {"finetune-operator.io/run": "blog"}},
                "spec": {
                    "restartPolicy": "Never",
                    "activeDeadlineSeconds": 7200,
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
                    "runtimeClassName": "nvidia",
                    "serviceAccountName": "trainer",
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
    for changes in (GPU_CHANGES, GPU_CHANGES | SEVERAL_NODES, GPU_CHANGES | QUEUED):
        kubernetes_validate.validate(a_job(stage, **changes), "1.37", strict=True)


@pytest.mark.parametrize("stage", [Stage.DATASET, Stage.PACKAGE])
def test_cpu_stages_never_hold_a_gpu_nor_wait_for_one(stage):
    manifest = a_job(stage, **GPU_CHANGES | SEVERAL_NODES | QUEUED)

    assert "nvidia.com/gpu" not in json.dumps(manifest)
    assert not {"nodeSelector", "runtimeClassName"} & set(pod_of(manifest))
    assert "suspend" not in manifest["spec"]
    assert "kueue.x-k8s.io/queue-name" not in manifest["metadata"]["labels"]
    assert pod_of(manifest)["containers"][0]["resources"]["requests"] == {"cpu": "2", "memory": "8Gi"}


def test_evaluation_runs_on_the_gpu_too():
    assert pod_of(a_job(Stage.EVALUATE, **GPU_CHANGES))["containers"][0]["resources"]["limits"] == {
        "memory": "32Gi",
        "nvidia.com/gpu": "1",
    }


def test_every_exit_code_of_the_contract_ends_the_job_and_a_disruption_does_not():
    actions = actions_of(a_job(Stage.TRAIN))

    assert actions.pop("DisruptionTarget") == "Ignore"
    assert actions == {str(code.value): "FailJob" for code in ExitCode if code is not ExitCode.OK}


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.EVALUATE])
def test_a_gpu_job_with_a_queue_waits_for_kueue_and_being_stopped_by_it_is_no_failure(stage):
    manifest = a_job(stage, **GPU_CHANGES | QUEUED)

    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-queue"
    assert manifest["spec"]["suspend"] is True
    actions = actions_of(manifest)
    assert {code for code, action in actions.items() if action == "Ignore"} == {
        "32",
        "143",
        "DisruptionTarget",
    }
    assert actions["30"] == "FailJob"


def test_a_finished_job_stays_long_enough_for_its_end_to_be_seen():
    manifest = job_manifest.job(a_run(ttlSecondsAfterFinished=0), CreateJob(Stage.TRAIN, 0, KEY), IMAGE)

    assert manifest["spec"]["ttlSecondsAfterFinished"] == 600


def test_a_training_that_needs_less_memory_than_the_spec_says_is_told_so():
    overlay = TrainingOverlay(micro_batch_size=1, gradient_checkpointing=True, sequence_length=512)

    manifest = job_manifest.job(a_run(), CreateJob(Stage.TRAIN, 1, KEY, overlay=overlay), IMAGE)

    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert TrainingOverlay.model_validate_json(env["FINETUNE_TRAINING_OVERLAY"] or "") == overlay


def test_without_a_queue_no_job_waits_for_kueue():
    assert "suspend" not in a_job(Stage.TRAIN, **GPU_CHANGES)["spec"]


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.PACKAGE, Stage.EVALUATE])
def test_stages_after_the_dataset_take_the_base_model_that_it_found_and_ask_nobody_else(stage):
    start = CreateJob(stage, 1, KEY, DIGEST, "hf://google/gemma-2-2b@" + "c" * 40)

    container = pod_of(job_manifest.job(a_run(), start, IMAGE))["containers"][0]

    assert container["command"][-2:] == ["--base-model", "hf://google/gemma-2-2b@" + "c" * 40]
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in container["env"]


def test_a_sweep_side_by_side_is_a_pod_a_share_with_a_gpu_each_that_need_not_find_each_other():
    run = a_run(**SIDE_BY_SIDE)
    manifest = a_job(Stage.TRAIN, **SIDE_BY_SIDE)
    pod = pod_of(manifest)

    spec = manifest["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert not {"subdomain", "affinity"} & pod.keys()
    assert not [entry for entry in pod["containers"][0]["env"] if entry["name"].startswith("PET_")]
    assert job_manifest.service_of(run, CreateJob(Stage.TRAIN, 1, KEY, DIGEST)) is None
    kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_a_pod_of_a_sweep_that_is_taken_away_is_replaced_and_the_others_go_on():
    alone, shared = a_job(Stage.TRAIN), a_job(Stage.TRAIN, **SIDE_BY_SIDE)

    assert shared["spec"]["podFailurePolicy"] == alone["spec"]["podFailurePolicy"]
    assert actions_of(shared)["DisruptionTarget"] == "Ignore"


def test_kueue_may_let_a_sweep_begin_with_one_pod_and_nothing_else():
    """It refuses the annotation on a Job with one pod."""
    shared = a_job(Stage.TRAIN, **SIDE_BY_SIDE, **QUEUED)
    others = [
        a_job(Stage.TRAIN, **SIDE_BY_SIDE),
        a_job(Stage.TRAIN, **GPU_CHANGES | QUEUED),
        a_job(Stage.TRAIN, **SEVERAL_NODES, **QUEUED),
        a_job(Stage.EVALUATE, **SIDE_BY_SIDE, **QUEUED),
    ]

    assert shared["metadata"]["annotations"][MAY_START_WITH_ONE] == "1"
    assert MAY_START_WITH_ONE not in shared["spec"]["template"]["metadata"]["annotations"]
    assert not any(MAY_START_WITH_ONE in job["metadata"]["annotations"] for job in others)


def test_evaluation_takes_one_pod_and_one_gpu_of_many():
    manifest = a_job(Stage.EVALUATE, **SEVERAL_NODES)

    assert manifest["spec"]["completions"] == 1
    assert "completionMode" not in manifest["spec"]
    assert pod_of(manifest)["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_service_account_is_for_every_stage_and_none_gets_its_token():
    for stage in Stage:
        pod = pod_of(a_job(stage, serviceAccountName="cloud"))
        assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("cloud", False)


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
    env = pod_of(a_job(stage))["containers"][0]["env"]
    by_reference = [entry["name"] for entry in env if "valueFrom" in entry]

    assert by_reference == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


def test_the_package_stage_knows_its_image_for_the_models_provenance():
    pod = pod_of(a_job(Stage.PACKAGE))["containers"][0]

    assert {"name": "TRAINER_IMAGE", "value": pod["image"]} in pod["env"]


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
