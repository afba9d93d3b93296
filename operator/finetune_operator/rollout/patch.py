"""The three environment entries that pin a model in somebody else's Deployment. Pure.

Nothing else is ever sent: no image, no annotation, no time. The values come from content alone, so putting the
old ones back gives the old template and Kubernetes takes its old ReplicaSet up again.
"""

from __future__ import annotations

from typing import Any, Protocol

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import ArtifactStatus, ModelPointer
from finetune_operator.observed import DeploymentFacts, TemplateContainer

MODEL_URI = "MODEL_URI"
MODEL_MANIFEST_SHA256 = "MODEL_MANIFEST_SHA256"
MODEL_ID = "MODEL_ID"
FETCH_NAMES = (MODEL_URI, MODEL_MANIFEST_SHA256)
SERVER_NAMES = (MODEL_ID,)


class Template(Protocol):
    """The containers of a Deployment's template, or of a pod that was made from it."""

    @property
    def init_containers(self) -> tuple[TemplateContainer, ...]: ...
    @property
    def containers(self) -> tuple[TemplateContainer, ...]: ...


def pointer_to(artifact: ArtifactStatus) -> ModelPointer:
    """The values that pin a stored model."""
    return ModelPointer(
        uri=artifact.uri,
        manifest_sha256=artifact.manifest_sha256,
        model_id=f"sha256:{artifact.manifest_sha256}",
    )


def our_variables(target: DeploymentTarget) -> dict[str, tuple[str, ...]]:
    """The variables that are ours, by container. Another container may use such a name for a purpose of its own."""
    return {target.fetch_container: FETCH_NAMES, target.server_container: SERVER_NAMES}


def fetch_container(target: DeploymentTarget, deployment: Template) -> TemplateContainer | None:
    """The init container that downloads the model."""
    return next((c for c in deployment.init_containers if c.name == target.fetch_container), None)


def server_container(target: DeploymentTarget, deployment: Template) -> TemplateContainer | None:
    """The container, or native sidecar, that serves the model."""
    sidecars = tuple(c for c in deployment.init_containers if c.restarts_always)
    return next((c for c in (*deployment.containers, *sidecars) if c.name == target.server_container), None)


def pointer_in(target: DeploymentTarget, deployment: Template) -> ModelPointer:
    """What the Deployment's template, or one of its pods, pins."""
    fetch, server = fetch_container(target, deployment), server_container(target, deployment)
    return ModelPointer(
        uri=fetch.value(MODEL_URI) if fetch else "",
        manifest_sha256=fetch.value(MODEL_MANIFEST_SHA256) if fetch else "",
        model_id=server.value(MODEL_ID) if server else "",
    )


def payload(target: DeploymentTarget, deployment: DeploymentFacts, pointer: ModelPointer) -> dict[str, Any]:
    """The server-side apply body that makes the template pin `pointer`; an empty one takes our entries out.

    The uid makes the API server refuse when the Deployment was made anew in between.
    """
    values = {
        MODEL_URI: pointer.uri,
        MODEL_MANIFEST_SHA256: pointer.manifest_sha256,
        MODEL_ID: pointer.model_id,
    }

    def entries(names: tuple[str, ...]) -> list[dict[str, str]]:
        return [{"name": name, "value": values[name]} for name in names if values[name]]

    init_containers = [{"name": target.fetch_container, "env": entries(FETCH_NAMES)}]
    server = {"name": target.server_container, "env": entries(SERVER_NAMES)}
    pod: dict[str, Any] = {"initContainers": init_containers}
    if any(container.name == target.server_container for container in deployment.containers):
        pod["containers"] = [server]
    else:
        init_containers.append(server)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment.name, "uid": deployment.uid},
        "spec": {"template": {"spec": pod}},
    }
