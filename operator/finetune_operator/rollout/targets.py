"""The Deployments of a run, one after the other: each gets the model once the one before serves it. Pure."""

from __future__ import annotations

from finetune_contract.run_spec import DeploymentTarget, FineTuneRunSpec
from finetune_contract.run_status import RolloutStatus
from finetune_operator.observed import Run


def targets(spec: FineTuneRunSpec) -> tuple[DeploymentTarget, ...]:
    """All of them in their order; none where nothing is rolled out."""
    first = spec.rollout.target.deployment if spec.rollout.target else None
    if first is None:
        return ()
    return (first, *(first.model_copy(update={"name": name, "others": []}) for name in first.others))


def current_target(run: Run) -> DeploymentTarget | None:
    """The first that does not serve the model yet; the last when all do."""
    known = targets(run.spec)
    done = run.status.rollout.done if run.status.rollout else []
    return next((target for target in known if target.name not in done), known[-1] if known else None)


def target_after(run: Run, rollout: RolloutStatus) -> DeploymentTarget | None:
    """The next one once the current one serves the model; None when it was the last."""
    current = current_target(run)
    served = {*rollout.done, current.name if current else ""}
    return next((target for target in targets(run.spec) if target.name not in served), None)
