"""A target that was made anew after its run had ended gets its model back, once for each new object. Pure.

That is true for every Deployment of a row: one that cannot take it keeps none of the others waiting.

Only where it names no model at all: what somebody put there on purpose stays.
"""

from __future__ import annotations

from dataclasses import replace

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import (
    FineTuneRunStatus,
    ModelPointer,
    Phase,
    Reason,
    RolloutPhase,
    RolloutStatus,
)
from finetune_operator.actions import PatchTarget
from finetune_operator.observed import NO_MODEL, DeploymentFacts, Observed, Run
from finetune_operator.rollout.patch import payload, pointer_in
from finetune_operator.rollout.preflight import Obstacle, obstacle_to_start
from finetune_operator.rollout.quarantine import held_back
from finetune_operator.rollout.record import record_name, recorded_model
from finetune_operator.rollout.reverts import put_back_words
from finetune_operator.rollout.targets import targets


def keeps_target(status: FineTuneRunStatus) -> bool:
    """The run ended with its model live."""
    rollout = status.rollout
    return status.phase is Phase.SUCCEEDED and rollout is not None and rollout.phase is RolloutPhase.SUCCEEDED


def uids_when_live(rollout: RolloutStatus) -> dict[str, str]:
    """uid by name of every Deployment that was rolled out; a row of an earlier release knows its last one alone."""
    last = rollout.target.removeprefix("deployment/")
    return {**rollout.done_uids, last: rollout.target_uid}


def lost_its_model(run: Run, deployment: DeploymentFacts) -> bool:
    """A target is another object than the one that was rolled out, and names no model."""
    rollout = run.status.rollout
    target = _target(run, deployment)
    if rollout is None or target is None or rollout.current is None or not keeps_target(run.status):
        return False
    known = uids_when_live(rollout).get(deployment.name, "")
    return known not in ("", deployment.uid) and pointer_in(target, deployment) == NO_MODEL


def given_back(run: Run, observed: Observed) -> tuple[RolloutStatus, PatchTarget] | None:
    """The patch that gives the model back, and what the status remembers; None when there is nothing to do."""
    rollout, deployment = run.status.rollout, observed.target
    if rollout is None or rollout.current is None or deployment is None:
        return None
    target = _target(run, deployment)
    if target is None:
        return None
    newer = observed.newer_run or not lost_its_model(run, deployment)
    if newer or _obstacle(run, target, rollout.current, observed) is not None:
        return None
    patch = PatchTarget(deployment.name, payload(target, deployment, rollout.current), run.spec.rollout.force)
    known: dict[str, object] = {"done_uids": {**rollout.done_uids, deployment.name: deployment.uid}}
    if rollout.target == f"deployment/{deployment.name}":
        known["target_uid"] = deployment.uid
    return rollout.model_copy(update=known), patch


def kept_waiting(run: Run, observed: Observed) -> Obstacle | None:
    """Why a target that was made anew has no model yet; None where none waits, or it is a newer run's to give."""
    rollout, deployment = run.status.rollout, observed.target
    if rollout is None or rollout.current is None or deployment is None or observed.newer_run:
        return None
    target = _target(run, deployment)
    if target is None or not lost_its_model(run, deployment):
        return None
    obstacle = _obstacle(run, target, rollout.current, observed)
    if obstacle is None:
        return None
    words = f"deployment/{target.name} was made anew and has no model: {obstacle.message}"
    return replace(obstacle, message=words)


def _obstacle(run: Run, target: DeploymentTarget, model: ModelPointer, observed: Observed) -> Obstacle | None:
    """Why a lost target cannot, or must not, get this model.

    The run whose model was live last may have been deleted. Its model is told by the record alone, which also keeps
    spoilt models away; where there is no record, nobody says otherwise.
    """
    if (obstacle := obstacle_to_start(target, observed)) is not None:
        return obstacle
    if observed.rolling_run:
        return Obstacle(
            Reason.WAITING, f'run "{observed.rolling_run}" is rolling out to it', needs_person=False
        )
    recorded = recorded_model(observed.recorded)
    if recorded.model_id not in ("", model.model_id):
        return Obstacle(
            Reason.SUPERSEDED,
            f"ConfigMap {record_name(target.name)} names another model than this run's, {recorded.model_id}. To put it "
            f"in, run: {put_back_words(run.namespace, target, recorded)}",
        )
    return held_back(run.namespace, target.name, model, observed.quarantine)


def _target(run: Run, deployment: DeploymentFacts) -> DeploymentTarget | None:
    return next((target for target in targets(run.spec) if target.name == deployment.name), None)
