"""A target that was made anew after its run had ended gets its model back, once for each new object. Pure.

Only where it names no model at all: what somebody put there on purpose stays.
"""

from __future__ import annotations

from finetune_contract.run_status import FineTuneRunStatus, Phase, RolloutPhase, RolloutStatus
from finetune_operator.actions import PatchTarget
from finetune_operator.observed import NO_MODEL, DeploymentFacts, Observed, Run
from finetune_operator.rollout.patch import payload, pointer_in
from finetune_operator.rollout.preflight import obstacle_to_start
from finetune_operator.rollout.targets import current_target


def keeps_target(status: FineTuneRunStatus) -> bool:
    """The run ended with its model live."""
    rollout = status.rollout
    return status.phase is Phase.SUCCEEDED and rollout is not None and rollout.phase is RolloutPhase.SUCCEEDED


def lost_its_model(run: Run, deployment: DeploymentFacts) -> bool:
    """The target is another object than the one that was rolled out, and names no model."""
    rollout = run.status.rollout
    target = current_target(run)
    return (
        keeps_target(run.status)
        and rollout is not None
        and target is not None
        and rollout.current is not None
        and deployment.uid != rollout.target_uid
        and pointer_in(target, deployment) == NO_MODEL
    )


def given_back(run: Run, observed: Observed) -> tuple[RolloutStatus, PatchTarget] | None:
    """The patch that gives the model back, and what the status remembers; None when there is nothing to do."""
    rollout, deployment = run.status.rollout, observed.target
    target = current_target(run)
    if rollout is None or rollout.current is None or deployment is None or target is None:
        return None
    others = observed.rolling_run or observed.newer_run
    if not lost_its_model(run, deployment) or others or obstacle_to_start(target, observed) is not None:
        return None
    patch = PatchTarget(deployment.name, payload(target, deployment, rollout.current), run.spec.rollout.force)
    return rollout.model_copy(update={"target_uid": deployment.uid}), patch
