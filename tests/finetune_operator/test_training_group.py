"""Several GPUs and several nodes: how the processes of one training find each other."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from finetune_contract.stage_protocol import Stage
from finetune_operator import job_manifest
from finetune_operator.actions import CreateJob
from tests.finetune_operator.samples import DIGEST, KEY, UID, a_run


def with_gpus(count: int, nodes: int) -> dict[str, Any]:
    return {"resources": {"train": {"gpu": {"count": count, "nodes": nodes}}}}


def train_job(count: int, nodes: int, attempt: int = 3) -> dict[str, Any]:
    start = CreateJob(Stage.TRAIN, attempt, KEY, DIGEST)
    return job_manifest.job(a_run(**with_gpus(count, nodes)), start, "trainer:1")


def torchrun_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """torchrun's options in the environment."""
    entries = manifest["spec"]["template"]["spec"]["containers"][0]["env"]
    return {
        entry["name"]: entry.get("value") or entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in entries
        if entry["name"].startswith("PET_")
    }


def test_one_gpu_is_an_ordinary_job_with_nothing_about_others():
    manifest = train_job(1, 1)

    assert torchrun_of(manifest) == {}
    assert not {"subdomain", "affinity"} & set(manifest["spec"]["template"]["spec"])


def test_several_gpus_of_one_node_are_one_pod_whose_processes_meet_at_home():
    manifest = train_job(4, 1)

    assert torchrun_of(manifest) == {
        "PET_NNODES": "1",
        "PET_NPROC_PER_NODE": "4",
        "PET_NODE_RANK": "0",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": "29400",
    }
    assert manifest["spec"]["completions"] == 1
    assert "subdomain" not in manifest["spec"]["template"]["spec"]


def test_several_nodes_are_an_indexed_job_whose_index_is_the_rank():
    manifest = train_job(8, 2)
    pod = manifest["spec"]["template"]["spec"]

    assert (manifest["spec"]["completions"], manifest["spec"]["parallelism"]) == (2, 2)
    assert manifest["spec"]["completionMode"] == "Indexed"
    assert torchrun_of(manifest) == {
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "8",
        "PET_NODE_RANK": "metadata.annotations['batch.kubernetes.io/job-completion-index']",
        "PET_MASTER_ADDR": "blog-49df072f-train-3-0.train-49df072f",
        "PET_MASTER_PORT": "29400",
    }
    assert pod["subdomain"] == "train-49df072f"
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_the_service_names_pods_that_are_not_ready_and_goes_with_the_run():
    service = job_manifest.service_of(a_run(**with_gpus(8, 2)), CreateJob(Stage.TRAIN, 3))

    assert service is not None
    kubernetes_validate.validate(service, "1.37", strict=True)
    assert service["metadata"]["name"] == "train-49df072f"
    assert service["metadata"]["ownerReferences"][0]["uid"] == UID
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    labels = train_job(8, 2)["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize(("stage", "count", "nodes"), [(Stage.TRAIN, 8, 1), (Stage.EVALUATE, 8, 2)])
def test_one_pod_needs_no_service(stage, count, nodes):
    assert job_manifest.service_of(a_run(**with_gpus(count, nodes)), CreateJob(stage, 0)) is None


def test_a_pod_that_is_taken_from_several_ends_the_attempt_because_the_others_hang_without_it():
    rules = train_job(1, 2)["spec"]["podFailurePolicy"]["rules"]

    assert rules[0]["action"] == "FailJob"
    assert rules[0]["onPodConditions"][0]["type"] == "DisruptionTarget"


def test_the_pods_of_an_attempt_prefer_different_nodes():
    affinity = train_job(1, 2)["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]

    labels = train_job(1, 2)["spec"]["template"]["metadata"]["labels"]
    assert preferred["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= labels.items()
