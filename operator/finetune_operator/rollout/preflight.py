"""What must be true of the target before a run starts, and again before it is patched. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import Reason
from finetune_operator.observed import DeploymentFacts, Observed, Refusal, TemplateContainer
from finetune_operator.rollout.patch import FETCH_NAMES, SERVER_NAMES, fetch_container, server_container
from finetune_operator.rollout.room import ModelNeed, shortage

PLACE = "spec.rollout.target.deployment"
MAX_NAMES = 10


@dataclass(frozen=True)
class Obstacle:
    """Why the target cannot be rolled out to now."""

    reason: Reason
    message: str
    needs_person: bool = True
    """False: it may pass by itself."""


def obstacle_to_start(target: DeploymentTarget, observed: Observed) -> Obstacle | None:
    """What would make the rollout fail at the end of a run that starts now."""
    deployment = observed.target
    if deployment is None:
        if observed.missing_target:
            return _missing("others", observed.missing_target, observed.deployments)
        return _missing("name", target.name, observed.deployments)
    for name, field, container, where, names in (
        (
            target.fetch_container,
            "fetchContainer",
            fetch_container(target, deployment),
            "initContainers",
            FETCH_NAMES,
        ),
        (
            target.server_container,
            "serverContainer",
            server_container(target, deployment),
            "containers",
            SERVER_NAMES,
        ),
    ):
        if container is None:
            return _no_container(deployment, name, field, where)
        if (entry := _bound_entry(container, names)) is not None:
            return Obstacle(
                Reason.FIELD_CONFLICT,
                f'{PLACE}: container "{name}" of Deployment "{deployment.name}" sets {entry} by valueFrom; '
                f"remove {entry} from the Deployment's manifest, the operator sets it",
            )
    if not any(c.readiness_probe for c in (*deployment.containers, *deployment.init_containers)):
        return Obstacle(
            Reason.INVALID_SPEC,
            f'{PLACE}.serverContainer: no container of Deployment "{deployment.name}" has a readinessProbe, so a '
            "crashing model server would count as ready; add one on /readyz to the container that answers readers",
        )
    return conflict(deployment.name, observed.refusal)


def obstacle_to_patch(
    target: DeploymentTarget, observed: Observed, need: ModelNeed | None = None, timeout_seconds: int = 86_400
) -> Obstacle | None:
    """What stands in the way of the patch now.

    Args:
        need: what the model takes; None when it is not known, or serves already.
        timeout_seconds: of the whole rollout.
    """
    if (obstacle := obstacle_to_start(target, observed)) is not None:
        return obstacle
    deployment = observed.target
    if observed.rolling_run:
        return Obstacle(
            Reason.WAITING,
            f'run "{observed.rolling_run}" is rolling out to the same Deployment; this one follows',
            needs_person=False,
        )
    if deployment is not None and deployment.paused:
        return Obstacle(
            Reason.DEPLOYMENT_PAUSED,
            f'Deployment "{deployment.name}" is paused; `kubectl rollout resume deployment/{deployment.name}`',
            needs_person=False,
        )
    if deployment is not None and deployment.replicas == 0:
        return Obstacle(
            Reason.NO_REPLICAS,
            f'Deployment "{deployment.name}" has 0 replicas, so the model could not be proven; scale it up',
            needs_person=False,
        )
    if deployment is not None and need is not None:
        short = shortage(target, deployment, need, timeout_seconds)
        return Obstacle(short.reason, short.message) if short else None
    return None


def conflict(deployment: str, refusal: Refusal | None) -> Obstacle | None:
    """The rehearsed patch's refusal in words."""
    if refusal is None:
        return None
    if refusal.owner:
        return Obstacle(
            Reason.FIELD_CONFLICT,
            f'Deployment "{deployment}": {refusal.field} is owned by "{refusal.owner}"; remove it from what '
            f"{refusal.owner} applies (Git, Helm values), the operator sets it; or make a run with rollout.force: true",
        )
    return Obstacle(
        Reason.INFRASTRUCTURE,
        f'Deployment "{deployment}": the API server refuses the patch: {refusal.message}',
    )


def _missing(field: str, name: str, existing: tuple[str, ...]) -> Obstacle:
    there = f"Deployments there: {_listed(existing)}" if existing else "there is no Deployment at all"
    return Obstacle(
        Reason.TARGET_NOT_FOUND,
        f'{PLACE}.{field}: Deployment "{name}" does not exist in the run\'s namespace ({there}); '
        "create it, or make a run that names another one. A StatefulSet or DaemonSet cannot be a target",
    )


def _no_container(deployment: DeploymentFacts, name: str, field: str, where: str) -> Obstacle:
    containers = deployment.init_containers if where == "initContainers" else deployment.containers
    there = _listed(tuple(container.name for container in containers))
    remedy = f"add it to the Deployment, or make a run with another {field}"
    return Obstacle(
        Reason.CONTAINER_NOT_FOUND,
        f'{PLACE}.{field}: Deployment "{deployment.name}" has no container "{name}" in its {where} '
        f"({there or 'none'} there); {remedy}",
    )


def _bound_entry(container: TemplateContainer, names: tuple[str, ...]) -> str | None:
    return next((e.name for e in container.env if e.name in names and e.from_elsewhere), None)


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(sorted(names)[:MAX_NAMES])
    return f"{shown} and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else shown
