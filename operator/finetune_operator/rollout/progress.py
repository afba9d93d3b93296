"""How a patched Deployment is doing: kubectl's rules in kubectl's order, and what its new pods show. Pure.

Pods are looked at first and in both `state` and `lastState`: they show a failure within seconds, long before
CrashLoopBackOff or the Deployment's own deadline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from finetune_contract.exit_reasons import FETCH_REASONS
from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import ModelPointer, Reason
from finetune_operator.failures import CONFIG_REASONS, IMAGE_REASONS
from finetune_operator.observed import ConditionFacts, ContainerFacts, DeploymentFacts, PodFacts, Termination
from finetune_operator.rollout.room import full_node_cure, mib
from finetune_operator.rollout.target_shape import TargetShape
from finetune_operator.timestamps import from_rfc3339, in_words, seconds_since

UNSCHEDULABLE_PATIENCE_SECONDS = 120.0
IMAGE_PATIENCE_SECONDS = 120.0
CONFIG_PATIENCE_SECONDS = 30.0
REPLICA_FAILURE_PATIENCE_SECONDS = 60.0
PATIENT_RESTARTS = 3
"""Containers that are not ours, and a store that does not answer, may try this often."""
CRASH_LOOP = "CrashLoopBackOff"
DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
FAILED_PROGRESS = {
    DEADLINE_EXCEEDED: Reason.PROGRESS_DEADLINE_EXCEEDED,
    "ReplicaSetCreateError": Reason.FAILED_CREATE,
}
"""Reasons of a Deployment's condition Progressing=False."""
HOPELESS_IMAGE_REASONS = frozenset({"InvalidImageName", "ErrImageNeverPull"})


@dataclass(frozen=True)
class Waiting:
    """Not yet; `message` says for what."""

    message: str
    cause: Reason | None = None
    """What a rollout ends with that has waited for this too long; None where only the time is known against it."""


@dataclass(frozen=True)
class Complete:
    """All wanted pods are new, and available."""


@dataclass(frozen=True)
class Failed:
    """It will not come right by itself."""

    reason: Reason
    message: str


Progress = Waiting | Complete | Failed


def watch(
    target: DeploymentTarget,
    deployment: DeploymentFacts,
    new_pods: tuple[PodFacts, ...],
    patched_at: str,
    now: datetime,
) -> Progress:
    """How the rollout is doing.

    Args:
        new_pods: pods whose template pins the wanted model.
        patched_at: conditions of the Deployment that are older speak of an earlier rollout.
    """
    if deployment.observed_generation < deployment.generation:
        return Waiting("the Deployment's controller has not seen the change yet", Reason.INFRASTRUCTURE)
    troubles = [pod_trouble(target, pod, deployment.shape, patched_at, now) for pod in new_pods]
    troubles.append(_deployment_trouble(deployment, patched_at, now))
    if (failed := next((trouble for trouble in troubles if isinstance(trouble, Failed)), None)) is not None:
        return _with_cause(failed, troubles)
    if deployment.paused:
        resume = f"kubectl rollout resume deployment/{deployment.name}"
        return Waiting(f"the Deployment is paused; `{resume}`", Reason.DEPLOYMENT_PAUSED)
    if (waiting := next((trouble for trouble in troubles if trouble is not None), None)) is not None:
        return waiting
    wanted, updated = deployment.replicas, deployment.updated_replicas
    if updated < wanted:
        return Waiting(f"{updated} of {wanted} new pods made")
    if deployment.total_replicas > updated:
        return Waiting(f"{deployment.total_replicas - updated} old pods are still there")
    if deployment.available_replicas < updated:
        return Waiting(f"{deployment.available_replicas} of {updated} new pods available")
    return Complete()


def _with_cause(failed: Failed, troubles: list[Failed | Waiting | None]) -> Failed:
    """A deadline says only that it took too long; what the pods waited for says why."""
    waits = (trouble for trouble in troubles if isinstance(trouble, Waiting))
    known = next(((wait.cause, wait.message) for wait in waits if wait.cause is not None), None)
    if failed.reason is not Reason.PROGRESS_DEADLINE_EXCEEDED or known is None:
        return failed
    cause, words = known
    return Failed(cause, f"{failed.message} {words}".strip())


def pods_with(pods: tuple[PodFacts, ...], pointer: ModelPointer) -> tuple[PodFacts, ...]:
    """Pods whose template pins this model and that are not going away."""
    return tuple(pod for pod in pods if pod.pointer == pointer and not pod.deleting)


def silent_failures(target: DeploymentTarget, pod: PodFacts) -> tuple[ContainerFacts, ...]:
    """Containers that ended badly and left no message: their log must tell.

    Only the two that serve the model: what others log is not ours to repeat.
    """
    if pod.ready or pod.deleting:
        return ()
    ours = (target.fetch_container, target.server_container)
    bad = ((container, _bad_end(container)) for container in pod.containers if container.name in ours)
    return tuple(container for container, ended in bad if ended is not None and not ended.message.strip())


def pod_trouble(
    target: DeploymentTarget, pod: PodFacts, shape: TargetShape, patched_at: str, now: datetime
) -> Failed | Waiting | None:
    """What is wrong with a new pod: for good, or so far with its cause; None when nothing is."""
    if pod.ready:
        return None
    waited = min(seconds_since(pod.created_at, now), seconds_since(patched_at, now))
    if pod.unschedulable:
        words = f"pod {pod.name} finds no node: {pod.unschedulable}{full_node_cure(shape)}"
        return _patient(Reason.UNSCHEDULABLE, words, waited, UNSCHEDULABLE_PATIENCE_SECONDS)
    troubles = [_container_trouble(target, pod, container, shape, waited) for container in pod.containers]
    failed = next((trouble for trouble in troubles if isinstance(trouble, Failed)), None)
    return failed or next((trouble for trouble in troubles if trouble is not None), None)


def _patient(reason: Reason, words: str, waited: float, patience: float) -> Failed | Waiting:
    """It may pass by itself, for so long."""
    if waited >= patience:
        return Failed(reason, words)
    return Waiting(f"{words} (given {in_words(patience)} to come right)", reason)


def _container_trouble(
    target: DeploymentTarget, pod: PodFacts, container: ContainerFacts, shape: TargetShape, waited: float
) -> Failed | Waiting | None:
    place = f'container "{container.name}" of pod {pod.name}'
    if container.waiting_reason in IMAGE_REASONS:
        words = f"{place}: {container.waiting_reason}: {container.waiting_message}"
        patience = 0.0 if container.waiting_reason in HOPELESS_IMAGE_REASONS else IMAGE_PATIENCE_SECONDS
        return _patient(Reason.IMAGE_PULL_FAILED, words, waited, patience)
    if container.waiting_reason in CONFIG_REASONS:
        secret = "secret" in container.waiting_message.lower()
        reason = Reason.SECRET_NOT_FOUND if secret else Reason.CONTAINER_CRASHED
        words = f"{place} cannot be made: {container.waiting_message}"
        return _patient(reason, words, waited, CONFIG_PATIENCE_SECONDS)
    ended = _bad_end(container)
    if ended is not None:
        return _ended_badly(target, container, ended, place, shape)
    if container.waiting_reason == CRASH_LOOP:
        words = f"{place} ends again and again, after {container.restarts} restarts with exit code 0"
        return (
            Failed(Reason.CONTAINER_CRASHED, words)
            if container.restarts >= PATIENT_RESTARTS
            else Waiting(words, Reason.CONTAINER_CRASHED)
        )
    return None


def _bad_end(container: ContainerFacts) -> Termination | None:
    """How the container failed, now or in its previous life; a ready one has not."""
    if container.ready:
        return None
    for ended in (container.terminated, container.last_terminated):
        if ended is not None and ended.exit_code != 0:
            return ended
        if ended is not None and ended is container.terminated and container.init:
            return None
    return None


def _ended_badly(
    target: DeploymentTarget, container: ContainerFacts, ended: Termination, place: str, shape: TargetShape
) -> Failed | Waiting:
    words = f": {ended.message.strip()}" if ended.message.strip() else ""
    if ended.reason == "OOMKilled":
        limit = shape.memory_limit(container.name)
        there = f"limit of {mib(limit)} MiB" if limit else "limit"
        return Failed(
            Reason.MODEL_TOO_LARGE,
            f"{place} was killed at its memory {there}; raise resources.limits.memory or serve a smaller "
            f"model{words}",
        )
    told = f"{place} ended with exit code {ended.exit_code}{words}"
    patient = container.restarts < PATIENT_RESTARTS
    tries = f"{told} (try {container.restarts + 1} of {PATIENT_RESTARTS + 1})"
    if container.name == target.fetch_container:
        reason = FETCH_REASONS.get(ended.exit_code, Reason.CONTAINER_CRASHED)
        if reason is Reason.STORE_UNAVAILABLE and patient:
            return Waiting(tries, reason)
        return Failed(reason, told)
    if container.name != target.server_container and patient:
        return Waiting(tries, Reason.CONTAINER_CRASHED)
    return Failed(Reason.CONTAINER_CRASHED, told)


def _deployment_trouble(
    deployment: DeploymentFacts, patched_at: str, now: datetime
) -> Failed | Waiting | None:
    waiting: Waiting | None = None
    for condition in deployment.conditions:
        said = _said_after(condition, patched_at)
        if (
            condition.type == "Progressing"
            and condition.status != "True"
            and condition.reason in FAILED_PROGRESS
            and (said > 0 if condition.reason == DEADLINE_EXCEEDED else said >= 0)
        ):
            return Failed(FAILED_PROGRESS[condition.reason], condition.message)
        if condition.type == "ReplicaFailure" and condition.status == "True" and said >= 0:
            since = seconds_since(condition.last_transition_time or condition.last_update_time, now)
            words = f"no new pod can be made: {condition.message}"
            found = _patient(Reason.FAILED_CREATE, words, since, REPLICA_FAILURE_PATIENCE_SECONDS)
            if isinstance(found, Failed):
                return found
            waiting = found
    return waiting


def _said_after(condition: ConditionFacts, patched_at: str) -> float:
    """Seconds from the patch until this was said; negative for what an earlier rollout left.

    Both times are whole seconds. A ReplicaSet or its first pod may be refused in the second of the patch; a deadline
    takes longer.
    """
    said, patched = from_rfc3339(condition.last_update_time), from_rfc3339(patched_at)
    return (said - patched).total_seconds() if said and patched else math.inf
