"""Whether a model is clearly worse than the one that is live; the gates compare it with the base model alone. Pure.

Both were measured on the questions of their own day. The sites and the questions change, so a small drop says nothing.
"""

from __future__ import annotations

from finetune_contract.run_spec import RolloutMode
from finetune_operator.observed import Observed, RecordedModel, Run
from finetune_operator.rollout.patch import pointer_in, pointer_to
from finetune_operator.rollout.record import measured
from finetune_operator.rollout.targets import current_target


def drop_below_live(run: Run, observed: Observed) -> str:
    """Which metric of a gate fell by more than `rollout.maxDrop`, in words; empty when none did or nothing is known."""
    artifact, evaluation = run.status.artifact, run.status.evaluation
    champion = _champion(run, observed)
    if artifact is None or evaluation is None or champion is None or champion.model == pointer_to(artifact):
        return ""
    before = dict(champion.metrics)
    now = dict(measured(evaluation))
    allowed = run.spec.rollout.max_drop
    for gate in run.spec.evaluation.gates:
        name = gate.metric.value
        if name in before and name in now and before[name] - now[name] > allowed:
            return (
                f"{name} {now[name]:.4g} is more than {allowed:g} (rollout.maxDrop) below the {before[name]:.4g} of "
                f'{champion.model.model_id}, live by run "{champion.run}"'
            )
    return ""


def _champion(run: Run, observed: Observed) -> RecordedModel | None:
    """The model that the target serves; where no target is touched, the one that was published last."""
    target = current_target(run)
    if run.spec.rollout.mode is RolloutMode.PUBLISH:
        return observed.history[0] if observed.history else None
    if target is None or observed.target is None:
        return None
    live = pointer_in(target, observed.target)
    return next((entry for entry in observed.history if entry.model == live), None)
