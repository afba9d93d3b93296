"""A model that a target had to be taken back from does not come again by itself. Pure.

A later run of the same spec and the same posts adopts the same stored model, and would end as the one before. The
record of the target keeps it back, by the digest of its manifest, until a person takes the entry out.
"""

from __future__ import annotations

from collections.abc import Mapping

from finetune_contract.run_status import ModelPointer, Reason, RolloutPhase, RolloutStatus
from finetune_operator.actions import WriteRecord
from finetune_operator.observed import Quarantined, Run
from finetune_operator.rollout.preflight import Obstacle
from finetune_operator.rollout.record import quarantine_key, record_name, record_with_quarantine

SPOILT = frozenset(
    {
        Reason.MODEL_NOT_FOUND,
        Reason.MODEL_INTEGRITY,
        Reason.FORBIDDEN_FILE,
        Reason.MODEL_TOO_LARGE,
        Reason.CONTAINER_CRASHED,
        Reason.PROGRESS_DEADLINE_EXCEEDED,
        Reason.WRONG_MODEL_SERVED,
        Reason.SMOKE_TEST_FAILED,
        Reason.SERVICE_ERRORS,
        Reason.WRONG_ANSWERS,
    }
)
"""Ends that speak against this model in this target; not those of a node, a quota, a credential or a person."""
MESSAGE_LENGTH = 300


def is_spoilt(rollout: RolloutStatus) -> bool:
    """The rollout ended, and the model is why. One that was live before the run and stays is not kept from coming."""
    ended = rollout.phase in (RolloutPhase.ROLLED_BACK, RolloutPhase.ROLLBACK_FAILED)
    return ended and rollout.reason in SPOILT and rollout.previous != rollout.current


def quarantine(
    run: Run, deployment: str, model: ModelPointer, rollout: RolloutStatus, recorded: Mapping[str, str]
) -> WriteRecord:
    """The target's record, with this model kept back.

    Args:
        recorded: what is on the record.
    """
    entry = Quarantined(model.model_id, run.name, rollout.reason, rollout.message[:MESSAGE_LENGTH])
    return record_with_quarantine(run, deployment, recorded, entry)


def quarantine_words(namespace: str, deployment: str, model: ModelPointer) -> str:
    """What follows for later runs, and what lifts it."""
    return (
        f"no later run rolls {model.model_id} out to deployment/{deployment} until the cause is mended and this was "
        f"run: {_lifting(namespace, deployment, model)}"
    )


def held_back(
    namespace: str, deployment: str, model: ModelPointer, quarantine: tuple[Quarantined, ...]
) -> Obstacle | None:
    """Why the model is not rolled out, or published, by itself."""
    entry = next((one for one in quarantine if one.model_id == model.model_id), None)
    if entry is None:
        return None
    told = f': run "{entry.run}" ended {entry.reason} with it ({entry.message})' if entry.run else ""
    return Obstacle(
        Reason.QUARANTINED,
        f"{model.model_id} is in quarantine for deployment/{deployment}{told}. Make a run that trains another model, "
        f"or mend the cause, and then run: {_lifting(namespace, deployment, model)}",
    )


def _lifting(namespace: str, deployment: str, model: ModelPointer) -> str:
    return (
        f"kubectl patch configmap {record_name(deployment)} --namespace {namespace} --type=merge "
        f'--patch \'{{"data":{{"{quarantine_key(model.model_id)}":null}}}}\''
    )
