"""Whether the pods serve what was rolled out: each names the model that it has loaded. Pure."""

from __future__ import annotations

from finetune_contract.run_status import Reason
from finetune_operator.observed import ServedModel
from finetune_operator.rollout.progress import Complete, Failed, Progress, Waiting


def verify(served: tuple[ServedModel, ...], model_id: str, replicas: int) -> Progress:
    """Compare each pod's answer with the model that must be served.

    Args:
        served: one answer a ready pod of the new template.
    """
    for answer in served:
        if answer.model and answer.model != model_id:
            return Failed(
                Reason.WRONG_MODEL_SERVED,
                f"pod {answer.pod} says that it serves {answer.model}, not {model_id}",
            )
    silent = [answer for answer in served if not answer.model]
    if silent:
        return Waiting(f"pod {silent[0].pod} has not named its model yet: {silent[0].problem}")
    if len(served) < max(1, replicas):
        return Waiting(f"{len(served)} of {replicas} pods have named their model")
    return Complete()
