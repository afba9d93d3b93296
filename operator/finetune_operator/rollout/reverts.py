"""Somebody took our values out of the target: who, what cures it, and whether they are put in once more. Pure.

The values are put in again once, when nobody else owns them: a single `kubectl apply` may have wiped them. A second
time, or when another manager declares them, it is a fight that nobody wins.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import ModelPointer, RolloutStatus
from finetune_operator.observed import NO_MODEL, DeploymentFacts
from finetune_operator.rollout.patch import (
    MODEL_ID,
    MODEL_MANIFEST_SHA256,
    MODEL_URI,
    our_variables,
    pointer_in,
)
from finetune_operator.rollout.target_shape import Writer

MAX_REVERTS = 1
STRANGER = Writer("another field manager")
_ARGO_CD, _FLUX, _FLUX_HELM, _HELM, _KUBECTL = (
    "argocd",
    "kustomize-controller",
    "helm-controller",
    "helm",
    "kubectl",
)


@dataclass(frozen=True)
class Revert:
    """What is made of it."""

    final: bool
    message: str


def after_revert(target: DeploymentTarget, deployment: DeploymentFacts, rollout: RolloutStatus) -> Revert:
    """Whether to put our values in once more, and who took them out."""
    live = pointer_in(target, deployment)
    owner = next((writer for writer in reversed(deployment.shape.writers) if writer.owns), None)
    writer = owner or next(reversed(deployment.shape.writers), STRANGER)
    wanted = rollout.current or NO_MODEL
    pairs = (
        (live.uri, wanted.uri),
        (live.manifest_sha256, wanted.manifest_sha256),
        (live.model_id, wanted.model_id),
    )
    wiped = all(value in ("", ours) for value, ours in pairs)
    found = live.model_id or "no model"
    fact = f'"{writer.manager}" changed {rollout.target} to {found} while the new model was rolling out'
    if wiped and owner is None and rollout.reverts < MAX_REVERTS:
        return Revert(False, fact)
    again = " again" if rollout.reverts else ""
    never_held = (
        "" if rollout.patched_generation else ", or a mutating webhook did in the moment of the change"
    )
    return Revert(
        True, f"{fact}{again}{never_held}; nothing was put back. {cure(target, deployment, writer)}"
    )


def cure(target: DeploymentTarget, deployment: DeploymentFacts, writer: Writer) -> str:
    """What to change where that manager gets its manifests, so that the three variables stay."""
    names = ", ".join(writer.owns) or "MODEL_URI, MODEL_MANIFEST_SHA256 and MODEL_ID"
    manager = writer.manager
    if manager.startswith(_ARGO_CD):
        paths = " ".join(f"- {path}" for path in _jq_paths(target, deployment))
        return (
            f"Remove {names} from Git; or in the Application set ignoreDifferences "
            f"[{{group: apps, kind: Deployment, name: {deployment.name}, jqPathExpressions: {paths}}}] with "
            "syncOptions RespectIgnoreDifferences=true and ServerSideApply=true. Then make a new run"
        )
    if manager == _FLUX:
        return (
            f"Remove {names} from Git, and let the Kustomization apply server-side without spec.force. Then make a new "
            "run"
        )
    if manager == _FLUX_HELM:
        return (
            f"Remove {names} from the values of the HelmRelease; with drift detection add them to "
            "spec.driftDetection.ignore. Then make a new run"
        )
    if manager.lower().startswith(_HELM):
        return (
            f"Remove {names} from the chart's values, and upgrade without --force-replace and with "
            "--server-side=true. Then make a new run"
        )
    if manager.startswith(_KUBECTL):
        return (
            f"Remove {names} from the manifest, and use `kubectl apply`, not `kubectl replace`, `edit` or "
            "`rollout undo`. Then make a new run"
        )
    return f"Remove {names} from what {manager} applies. Then make a new run"


def put_back_words(namespace: str, target: DeploymentTarget, model: ModelPointer) -> str:
    """The commands by which a person puts a model into the two containers, and into no other."""
    values = {MODEL_URI: model.uri, MODEL_MANIFEST_SHA256: model.manifest_sha256, MODEL_ID: model.model_id}
    commands = (
        " ".join(
            (
                f"kubectl set env deployment/{target.name} --namespace={namespace} --containers={container}",
                *(f"{name}={values[name]}" if values[name] else f"{name}-" for name in names),
            )
        )
        for container, names in our_variables(target).items()
    )
    return " && ".join(commands)


def _jq_paths(target: DeploymentTarget, deployment: DeploymentFacts) -> tuple[str, str]:
    sidecar = not any(container.name == target.server_container for container in deployment.containers)
    server_list = "initContainers" if sidecar else "containers"
    return (
        f'.spec.template.spec.initContainers[] | select(.name == "{target.fetch_container}") | .env[]? | '
        'select(.name | startswith("MODEL_"))',
        f'.spec.template.spec.{server_list}[] | select(.name == "{target.server_container}") | .env[]? | '
        'select(.name == "MODEL_ID")',
    )
