"""The Jobs that the operator makes of the production examples, field by field where a GPU is concerned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from finetune_contract.run_document import parse_run
from finetune_contract.run_status import FineTuneRunStatus
from finetune_contract.stage_protocol import Stage
from finetune_operator import job_manifest
from finetune_operator.actions import CreateJob
from finetune_operator.observed import Run

EXAMPLES = Path(__file__).parents[2] / "examples"
ACCELERATED = (Stage.TRAIN, Stage.EVALUATE)


def the_job(folder: str, stage: Stage) -> dict[str, Any]:
    text = (EXAMPLES / folder / "finetunerun.yaml").read_text()
    metadata, spec = parse_run(text)
    run = Run(
        namespace=metadata.namespace,
        name=metadata.name,
        uid="0b0e8f0a-0000-4000-8000-000000000000",
        generation=1,
        resource_version="1",
        spec=spec,
        spec_as_written=yaml.safe_load(text)["spec"],
        status=FineTuneRunStatus(),
    )
    return job_manifest.job(run, CreateJob(stage, 0, "k" * 64, "d" * 64), "registry.example/trainer@sha256:0")


@pytest.mark.parametrize("folder", ["gemma-2-2b", "llama-2-7b-chat"])
@pytest.mark.parametrize("stage", list(Stage))
def test_a_gpu_is_asked_for_by_the_stages_that_use_one_and_by_no_other(folder: str, stage: Stage) -> None:
    manifest = the_job(folder, stage)
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    spec = parse_run((EXAMPLES / folder / "finetunerun.yaml").read_text())[1]
    wanted = spec.resources.train if stage in ACCELERATED else spec.resources.other
    gpus = {"nvidia.com/gpu": "1"} if stage in ACCELERATED else {}

    kubernetes_validate.validate(manifest, "1.37", strict=True)
    assert container["image"] == "registry.example/trainer@sha256:0"
    assert container["command"][:2] == ["finetune-stage", stage.value]
    assert container["resources"]["requests"] == {"cpu": wanted.cpu, "memory": wanted.memory} | gpus
    assert container["resources"]["limits"] == {"memory": wanted.memory} | gpus
    tolerated = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert (tolerated in pod.get("tolerations", [])) == (stage in ACCELERATED)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["work"] == {"name": "work", "emptyDir": {"sizeLimit": wanted.scratch}}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": wanted.shared_memory}
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert manifest["spec"]["backoffLimit"] == 0
    assert manifest["spec"]["template"]["spec"]["activeDeadlineSeconds"] == spec.policy.stage_deadline_seconds


@pytest.mark.parametrize("folder", ["gemma-2-2b", "llama-2-7b-chat"])
def test_the_hugging_face_token_is_given_to_the_stage_that_fetches_and_never_to_a_gpu_pod(
    folder: str,
) -> None:
    token_wanted = parse_run((EXAMPLES / folder / "finetunerun.yaml").read_text())[
        1
    ].base_model.token_secret_ref
    for stage in Stage:
        (container,) = the_job(folder, stage)["spec"]["template"]["spec"]["containers"]
        has_token = "HF_TOKEN" in [entry["name"] for entry in container["env"]]

        assert has_token == (stage is Stage.DATASET and token_wanted is not None)
