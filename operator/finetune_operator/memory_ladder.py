"""What a training that ran out of GPU memory tries next. Pure.

The rungs: half the micro-batch at the same effective batch, down to 1; then gradient checkpointing; then, only where
the user allows it, half the sequence length.
"""

from __future__ import annotations

from finetune_contract.run_spec import FineTuneRunSpec, OutOfMemoryStrategy, TrainingSpec
from finetune_contract.stage_protocol import TrainingOverlay

_NO_RUNG_HELPS = "spec.resources.train.gpu:"
"""How the train stage begins its message when the base model alone does not fit."""


def rungs(spec: FineTuneRunSpec) -> tuple[TrainingOverlay, ...]:
    """All rungs, from the one after the spec's own settings to the last."""
    policy, training = spec.policy.out_of_memory, spec.training
    if policy.strategy is OutOfMemoryStrategy.FAIL:
        return ()
    found: list[TrainingOverlay] = []
    here = as_written(training)
    while here.micro_batch_size > 1:
        here = here.model_copy(update={"micro_batch_size": _half(training, here.micro_batch_size)})
        found.append(here)
    if not here.gradient_checkpointing:
        here = here.model_copy(update={"gradient_checkpointing": True})
        found.append(here)
    shortest = policy.min_sequence_length
    while shortest is not None and here.sequence_length > shortest:
        here = here.model_copy(update={"sequence_length": max(shortest, here.sequence_length // 2)})
        found.append(here)
    return tuple(found)


def rung(spec: FineTuneRunSpec, times_out_of_memory: int) -> TrainingOverlay | None:
    """What an attempt trains with after memory ran out so often; None for the spec's own settings."""
    ladder = rungs(spec)
    if not times_out_of_memory or not ladder:
        return None
    return ladder[min(times_out_of_memory, len(ladder)) - 1]


def may_help(spec: FineTuneRunSpec, times_out_of_memory: int, message: str) -> bool:
    """There is a rung after so many failures, the last of which left this message."""
    return times_out_of_memory <= len(rungs(spec)) and not message.startswith(_NO_RUNG_HELPS)


def as_written(training: TrainingSpec) -> TrainingOverlay:
    """The spec's own settings."""
    return TrainingOverlay(
        micro_batch_size=training.micro_batch_size,
        gradient_checkpointing=training.gradient_checkpointing,
        sequence_length=training.sequence_length,
    )


def changes_in_words(before: TrainingOverlay, after: TrainingOverlay) -> str:
    """Such as `spec.training.microBatchSize: 4 -> 2`."""
    old, new = before.to_wire(), after.to_wire()
    return ", ".join(
        f"spec.training.{field}: {_word(old[field])} -> {_word(value)}"
        for field, value in new.items()
        if value != old[field]
    )


def _half(training: TrainingSpec, size: int) -> int:
    """The largest size of at most half that divides the effective batch."""
    batch = training.effective_batch_size
    return next(smaller for smaller in range(size // 2, 0, -1) if batch % smaller == 0)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
