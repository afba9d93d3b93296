from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_contract.run_spec import DeploymentTarget, RolloutMode, RolloutSpec

MANIFEST = Path(__file__).parents[2] / "examples" / "quickstart" / "chat.yaml"
DEFAULTS = RolloutSpec(mode=RolloutMode.NONE)


@pytest.fixture(scope="module")
def deployment() -> dict[str, Any]:
    documents = list(yaml.safe_load_all(MANIFEST.read_text()))
    return next(document for document in documents if document["kind"] == "Deployment")


def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def containers(deployment: dict[str, Any]) -> dict[str, dict[str, Any]]:
    spec = pod(deployment)
    return {container["name"]: container for container in [*spec["initContainers"], *spec["containers"]]}


def test_the_operator_finds_its_two_containers_by_their_usual_names(deployment: dict[str, Any]) -> None:
    target = DeploymentTarget(name="chat")

    assert {target.fetch_container, target.server_container} <= set(containers(deployment))


def test_the_three_entries_of_the_operator_are_declared_nowhere(deployment: dict[str, Any]) -> None:
    declared = {entry["name"] for container in containers(deployment).values() for entry in container["env"]}

    assert not declared & {"MODEL_URI", "MODEL_MANIFEST_SHA256", "MODEL_ID"}


def test_only_a_pod_whose_model_answers_gets_readers(deployment: dict[str, Any]) -> None:
    web = containers(deployment)["web"]

    assert web["ports"] == [{"name": "http", "containerPort": DEFAULTS.serving_port}]
    assert web["readinessProbe"]["httpGet"]["path"] == web["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert web["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_the_old_pod_stays_until_the_new_one_is_ready(deployment: dict[str, Any]) -> None:
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert deployment["spec"]["progressDeadlineSeconds"] < DEFAULTS.timeout_seconds


def test_every_container_runs_in_a_restricted_namespace(deployment: dict[str, Any]) -> None:
    assert pod(deployment)["securityContext"]["runAsNonRoot"] is True
    assert pod(deployment)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(deployment).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
