"""The identity of finished work: what goes into it decides when a model is adopted and not trained again."""

from __future__ import annotations

import hashlib
import json

from finetune_contract import VERSION
from finetune_contract.run_spec import FineTuneRunSpec

_ONLY_LOOKS = {"evaluateEverySteps"}
"""Fields of the training spec that leave the model as it is."""


def run_key(
    spec: FineTuneRunSpec, base_model_digest: str, dataset_digest: str, version: str = VERSION
) -> str:
    """sha256 over training, packaging and evaluation spec, base model, dataset and trainer version, as hex.

    Resources, scheduling, store, rollout and names are left out: they do not change the model. So is how often training
    is looked at.
    """
    parts = {
        "version": version,
        "baseModel": base_model_digest,
        "dataset": dataset_digest,
        "promptFormat": spec.dataset.prompt_format.value,
        "training": {
            field: value for field, value in spec.training.to_wire().items() if field not in _ONLY_LOOKS
        },
        "packaging": spec.packaging.to_wire(),
        "evaluation": spec.evaluation.to_wire(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
