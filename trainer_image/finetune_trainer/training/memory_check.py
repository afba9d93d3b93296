"""Is there room for the training that the spec asks for, and if not, for fewer examples at a time?

Asked before the model is loaded; only a clear no changes anything.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.errors import CudaOutOfMemory, HostOutOfMemory
from finetune_trainer.training.memory_estimate import (
    BranchSize,
    MemoryEstimate,
    Numbers,
    RowSize,
    changes_in_words,
    estimate_memory,
    first_way_that_fits,
)
from finetune_trainer.training.model_shape import ModelShape, UnknownShape, read_model_shape
from finetune_trainer.training.packing import PackedBatch, TrainingPlan
from finetune_trainer.training.ranks import ALONE, Ranks
from finetune_trainer.training.row_attention import filled_length

logger = logging.getLogger(__name__)

TOLERANCE = 1.1
"""The estimate may be this much too high: only what is over the room even then is refused."""
STEPS_LOOKED_AT = 40
"""The heaviest micro-batch is looked for in so many steps of the plan, spread over it."""
LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""The container's memory limit, in cgroup v2 and v1."""
_NO_LIMIT = 2**60
"""cgroup v1 writes a number over this when there is none."""
_GIB = 2**30


@dataclass(frozen=True)
class FittedTraining:
    """A training that memory does for, as far as is known."""

    training: TrainingSpec
    estimate: MemoryEstimate | None
    """None for a model whose sizes are not known."""
    pieces: int = 1
    """More than one: the base is dealt out over so many processes."""


def fit_memory(
    base_folder: Path,
    training: TrainingSpec,
    plan: TrainingPlan,
    device: torch.device,
    dtype: torch.dtype,
    limit_files: Sequence[Path] = LIMIT_FILES,
    ranks: Ranks = ALONE,
) -> FittedTraining:
    """Estimate, say so in the log, and compare with what is there.

    What clearly does not fit is trained with fewer examples at a time, then with checkpointing, then both with the base
    dealt out over the processes: the effective batch stays, and so does the result. Shorter sequences would leave
    examples out and are only advised. All processes come to the same, by the smallest room of theirs.

    Raises:
        CudaOutOfMemory: no micro-batch fits the GPU.
        HostOutOfMemory: no micro-batch fits the container.
    """
    try:
        shape = read_model_shape(base_folder / "config.json")
    except UnknownShape as error:
        logger.info("memory is not estimated: %s", error)
        return FittedTraining(training, None)
    numbers = Numbers(device.type, dtype.itemsize)
    row = heaviest_row(plan, training, shape, numbers)
    if row is None:
        return FittedTraining(training, None)
    estimate = estimate_memory(shape, training, numbers, row)
    room = _smallest_room(_room(device, estimate, limit_files), ranks, device)
    _log(training, row, estimate, room, device)
    if room is None or estimate.tensors <= room:
        return FittedTraining(training, estimate)
    if estimate.tensors <= room * TOLERANCE:
        logger.warning("memory will be short: the estimate is over what is there, within its own accuracy")
        return FittedTraining(training, estimate)

    def row_of(changed: TrainingSpec) -> RowSize | None:
        return heaviest_row(plan, changed, shape, numbers)

    fitting, pieces = first_way_that_fits(training, shape, numbers, row_of, room, ranks.count)
    if fitting is None or fitting.sequence_length != training.sequence_length:
        estimate = estimate_memory(shape, training, numbers, row, ranks.count)
        raise _refusal(training, row, estimate, room, fitting, device)
    logger.warning(
        "memory does not do for spec.training as it is; the same effective batch is trained with %s",
        changes_in_words(training, fitting, pieces),
    )
    smaller = row_of(fitting) or row
    estimate = estimate_memory(shape, fitting, numbers, smaller, pieces)
    _log(fitting, smaller, estimate, room, device)
    return FittedTraining(fitting, estimate, pieces)


def _log(
    training: TrainingSpec, row: RowSize, estimate: MemoryEstimate, room: int | None, device: torch.device
) -> None:
    logger.info(
        "memory estimated: device=%s micro_batch=%d row_tokens=%d weights_gib=%.2f adapter_gib=%.2f "
        "optimizer_gib=%.2f activations_gib=%.2f total_gib=%.2f room_gib=%s",
        device.type,
        training.micro_batch_size,
        row.tokens,
        estimate.weights / _GIB,
        (estimate.adapter + estimate.gradients) / _GIB,
        estimate.optimizer / _GIB,
        estimate.activations / _GIB,
        estimate.total / _GIB,
        "unknown" if room is None else f"{(room + estimate.process) / _GIB:.2f}",
    )


def heaviest_row(
    plan: TrainingPlan, training: TrainingSpec, shape: ModelShape, numbers: Numbers
) -> RowSize | None:
    """Of the micro-batches that the plan would make with this training, the one that needs most."""
    rows = tuple(row for row in plan.rows if len(row) <= training.sequence_length)
    if not rows:
        return None
    plan = replace(plan, rows=rows, micro_batch_size=training.micro_batch_size)
    sizes = {row_size(batch) for step in some_steps(plan) for batch in plan.step_micro_batches(step)}
    if numbers.device == "cuda":
        sizes = {_filled_up(size) for size in sizes}
    return max(sizes, key=lambda size: estimate_memory(shape, training, numbers, size).activations)


def row_size(batch: PackedBatch) -> RowSize:
    """The sizes of a packed row."""
    branches = tuple(BranchSize(branch.end - branch.start, len(branch.past)) for branch in batch.branches)
    return RowSize(tuple(branch for branch in branches if branch.new), len(batch.labels))


def _filled_up(size: RowSize) -> RowSize:
    """The row with its padding, as compiled layers get it."""
    padding = filled_length(size.tokens) - size.tokens
    return replace(size, branches=(*size.branches, BranchSize(padding))) if padding else size


def container_memory_limit(files: Sequence[Path] = LIMIT_FILES) -> int | None:
    """Bytes that this container may use; None when nothing limits it."""
    for file in files:
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _NO_LIMIT:
            return int(text)
    return None


def _room(device: torch.device, estimate: MemoryEstimate, limit_files: Sequence[Path]) -> int | None:
    """Bytes for tensors: what is free on the GPU, where the process is already; in a container all but the process."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    limit = container_memory_limit(limit_files)
    return None if limit is None else max(0, limit - estimate.process)


def _smallest_room(room: int | None, ranks: Ranks, device: torch.device) -> int | None:
    """That of all processes: each must train the same micro-batches."""
    smallest = ranks.smallest(_NO_LIMIT if room is None else room, device)
    return None if smallest == _NO_LIMIT else smallest


def some_steps(plan: TrainingPlan) -> Iterable[int]:
    """STEPS_LOOKED_AT steps, spread over the plan; all of a short one."""
    total = plan.total_steps
    if total <= STEPS_LOOKED_AT:
        return range(total)
    return (number * total // STEPS_LOOKED_AT for number in range(STEPS_LOOKED_AT))


def _refusal(
    training: TrainingSpec,
    row: RowSize,
    estimate: MemoryEstimate,
    room: int,
    fitting: TrainingSpec | None,
    device: torch.device,
) -> CudaOutOfMemory | HostOutOfMemory:
    on_gpu = device.type == "cuda"
    need = (estimate.tensors if on_gpu else estimate.total) / _GIB
    there = (room if on_gpu else room + estimate.process) / _GIB
    parts = (
        f"weights {estimate.weights / _GIB:.1f}, adapter {(estimate.adapter + estimate.gradients) / _GIB:.1f}, "
        f"optimizer {estimate.optimizer / _GIB:.1f}, activations {estimate.activations / _GIB:.1f}"
    )
    more = (
        "take a larger GPU, or more of them"
        if on_gpu
        else f"raise spec.resources.train.memory to {math.ceil(need)}Gi"
    )
    remedy = f"set {changes_in_words(training, fitting)}, or {more}" if fitting else more
    where = "are free on the GPU" if on_gpu else "are the container's memory limit"
    message = (
        f"spec.training.microBatchSize: {training.micro_batch_size} examples ({row.tokens} tokens) need about "
        f"{need:.1f} GiB ({parts}), and {there:.1f} GiB {where}; {remedy}"
    )
    return CudaOutOfMemory(message) if on_gpu else HostOutOfMemory(message)
