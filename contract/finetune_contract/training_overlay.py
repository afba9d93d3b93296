"""The spec that a stage trains by: the run's own, with what the operator changed after memory ran out."""

from __future__ import annotations

from pydantic import ValidationError

from finetune_contract.run_document import InvalidRunDocument
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.stage_protocol import ENV_TRAINING_OVERLAY, TrainingOverlay


def with_overlay(spec: FineTuneRunSpec, overlay: str) -> FineTuneRunSpec:
    """The spec with the settings of an overlay in `spec.training`; the same spec when there is none.

    Args:
        overlay: value of ENV_TRAINING_OVERLAY; empty when it is not set.

    Raises:
        InvalidRunDocument: the overlay says something that this version does not know.
    """
    if not overlay:
        return spec
    try:
        changes = TrainingOverlay.model_validate_json(overlay)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in (ENV_TRAINING_OVERLAY, *problem["loc"]))
        raise InvalidRunDocument(
            [f"{place}: {problem['msg']}; use a trainer image of the operator's own version"]
        ) from error
    training = spec.training.model_copy(update=changes.model_dump())
    return spec.model_copy(update={"training": training})
