"""The identity of finished work: what goes into it decides when a model is adopted and not trained again."""

from __future__ import annotations

import hashlib
import json

from finetune_contract import VERSION
from finetune_contract.run_spec import FineTuneRunSpec, TrainingSpec

_ONLY_LOOKS = {"evaluateEverySteps"}
"""Fields of the training spec that leave the model as it is."""
_ONLY_PLACES = {"parallelism"}
"""Fields of a sweep that say where its trials are trained."""


def run_key(
    spec: FineTuneRunSpec, base_model_digest: str, dataset_digest: str, version: str = VERSION
) -> str:
    """sha256 over training, packaging and evaluation spec, base model, dataset and trainer version, as hex.

    Resources, scheduling, store, rollout and names are left out: they do not change the model. So is how often training
    is looked at, and how many pods share a sweep.
    """
    parts = {
        "version": version,
        "baseModel": base_model_digest,
        "dataset": dataset_digest,
        "promptFormat": spec.dataset.prompt_format.value,
        "training": _training(spec.training),
        "packaging": spec.packaging.to_wire(),
        "evaluation": spec.evaluation.to_wire(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _training(training: TrainingSpec) -> dict[str, object]:
    parts = {field: value for field, value in training.to_wire().items() if field not in _ONLY_LOOKS}
    if training.sweep is not None:
        sweep = training.sweep.to_wire()
        parts["sweep"] = {field: value for field, value in sweep.items() if field not in _ONLY_PLACES}
    return parts
