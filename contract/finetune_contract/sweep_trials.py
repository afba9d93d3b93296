"""The trials of a sweep: plain trainings, in an order that depends on the spec alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from finetune_contract.run_spec import FineTuneRunSpec, LoraSpec, SweepSpec, TrainingSpec


def trials_of(training: TrainingSpec) -> list[TrainingSpec]:
    """Every combination of the values, the last setting changing fastest; without a sweep the training itself."""
    if training.sweep is None:
        return [training]
    values = training.sweep.values()
    plain = training.model_copy(update={"sweep": None})
    return [
        _with_settings(plain, dict(zip(values, combination, strict=True)))
        for combination in product(*values.values())
    ]


def pods_side_by_side(training: TrainingSpec) -> int:
    """Pods that share the trials: as many as the sweep asks for, and never more than there are trials."""
    if training.sweep is None:
        return 1
    return min(training.sweep.parallelism, len(trials_of(training)))


def settings_in_words(training: TrainingSpec, trial: TrainingSpec) -> str:
    """What sets the trial apart from the others, such as `learningRate 0.0001, rank 16`."""
    if training.sweep is None:
        return ""
    fields = SweepSpec.model_fields
    return ", ".join(
        f"{fields[name].alias or name} {getattr(trial.lora if name in LoraSpec.model_fields else trial, name):g}"
        for name in training.sweep.values()
    )


def as_trained(spec: FineTuneRunSpec, trial: int | None) -> FineTuneRunSpec:
    """The spec with the training of the chosen trial in the place of the sweep.

    Args:
        trial: its number, from 1, as the adapter's facts have it; None when there was no sweep.
    """
    if trial is None:
        return spec
    return spec.model_copy(update={"training": trials_of(spec.training)[trial - 1]})


def _with_settings(training: TrainingSpec, settings: Mapping[str, float]) -> TrainingSpec:
    of_lora = {name: value for name, value in settings.items() if name in LoraSpec.model_fields}
    others = {name: value for name, value in settings.items() if name not in LoraSpec.model_fields}
    return training.model_copy(update={**others, "lora": training.lora.model_copy(update=of_lora)})
