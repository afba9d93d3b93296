"""All that is there before the first step: base model, rows, and a loop that is ready to run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from finetune_contract.artifact_layout import EVALUATION_FILE, TRAIN_FILE, dataset_folder
from finetune_contract.artifacts import Example
from finetune_trainer.artifact_files import fetch_folder
from finetune_trainer.errors import BaseModelRejected, CudaOutOfMemory, DataRejected
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import attention, base_model, row_attention
from finetune_trainer.training.adapted_tensors import read_weights, tensors_by_file
from finetune_trainer.training.adapter import (
    add_adapter,
    attention_name,
    linear_layer_names,
    load_quantized_base,
)
from finetune_trainer.training.compiled_layers import compile_if_it_proves
from finetune_trainer.training.compute_dtype import choose_device, choose_dtype
from finetune_trainer.training.encoding import EncodedRows, encode_rows, load_tokenizer
from finetune_trainer.training.loop import TrainingLoop, restore_random_state
from finetune_trainer.training.memory_check import fit_memory, some_steps
from finetune_trainer.training.model_shape import ModelLimits, read_model_limits
from finetune_trainer.training.packing import TrainingPlan
from finetune_trainer.training.packing_proof import use_own_attention, why_not_packed
from finetune_trainer.training.ranks import ALONE, Ranks
from finetune_trainer.workspace_errors import TRAIN_SCRATCH

if TYPE_CHECKING:
    from finetune_trainer.training.dealt_base import LayerWindow

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingFiles:
    """What a training is made of."""

    base: base_model.ResolvedBaseModel
    base_folder: Path
    rows: EncodedRows


def prepare_files(context: StageContext, ranks: Ranks) -> TrainingFiles:
    """Base model and rows: the first process of a node fetches them, the others find them there."""
    if ranks.on_this_node:
        ranks.wait()
    base = base_model.resolve(context)
    base_folder = base_model.fetch(context, base, TRAIN_SCRATCH)
    if not ranks.on_this_node:
        _fetch_rows(context)
        ranks.wait()
    return TrainingFiles(base, base_folder, _read_rows(context, base_folder))


def _fetch_rows(context: StageContext) -> None:
    context.progress(message="reading the training rows")
    rows_alone = (TRAIN_FILE, EVALUATION_FILE)  # what tells of them may be stored anew meanwhile
    folder = context.work_folder / "dataset"
    fetch_folder(context.store, dataset_folder(context.dataset_digest), folder, only_below=rows_alone)


def _read_rows(context: StageContext, base_folder: Path) -> EncodedRows:
    folder = context.work_folder / "dataset"
    with (folder / TRAIN_FILE).open(encoding="utf-8") as lines:
        examples = [Example.model_validate_json(line) for line in lines]
    tokenizer = load_tokenizer(base_folder, context.spec.dataset.prompt_format)
    limit = context.spec.training.sequence_length
    rows = encode_rows(tokenizer, examples, limit)
    if not rows.rows:
        raise DataRejected(
            f"spec.training.sequenceLength: none of {len(examples)} training rows fits {limit} tokens; raise it"
        )
    _check_limits(rows, read_model_limits(base_folder / "config.json"))
    if rows.broken_off:
        logger.warning(
            "rows whose answer holds a token that ends a turn are left out: left_out=%d", len(rows.broken_off)
        )
    if rows.too_long:
        logger.warning(
            "rows longer than spec.training.sequenceLength are left out: limit=%d left_out=%d kept=%d",
            limit,
            len(rows.too_long),
            len(rows.rows),
        )
    return rows


def _check_limits(rows: EncodedRows, limits: ModelLimits) -> None:
    """A model that is given a place or a token that it does not have breaks off, or learns what it cannot use."""
    longest = max(map(len, rows.rows))
    if limits.positions is not None and longest > limits.positions:
        raise DataRejected(
            f"spec.training.sequenceLength: the longest training row has {longest} tokens and the base model reads "
            f"{limits.positions}; set it to {limits.positions}, which leaves longer rows out"
        )
    highest = max(max(row.token_ids) for row in rows.rows)
    if limits.vocabulary is not None and highest >= limits.vocabulary:
        raise BaseModelRejected(
            f"spec.baseModel.uri: the tokenizer makes token {highest} of the training rows and the model's table has "
            f"{limits.vocabulary}; its tokens were added without resizing the model: take a folder where both fit"
        )


def prepare_loop(context: StageContext, files: TrainingFiles, ranks: Ranks) -> TrainingLoop:
    """The model in memory, with an adapter that has learned nothing yet."""
    training = context.spec.training
    device = choose_device(ranks.on_this_node)
    dtype = choose_dtype(training.quantization.compute_dtype, device)
    plan = TrainingPlan.of(files.rows.rows, training)
    fitted = fit_memory(files.base_folder, training, plan, device, dtype, ranks=ranks)
    training, dealt_over = fitted.training, ranks if fitted.pieces > 1 else ALONE
    plan = replace(plan, micro_batch_size=training.micro_batch_size)
    context.progress(message=f"loading the base model in 4 bits on {device.type}")
    try:
        base = load_quantized_base(files.base_folder, training, device, dtype, dealt_over)
        # what has no one tensor in the base's files could be trained, and never packaged
        tensors_by_file(linear_layer_names(base), read_weights(files.base_folder))
        model = add_adapter(base, training)
        window = _deal_out(model, dealt_over) if dealt_over.count > 1 else None
    except torch.OutOfMemoryError as error:
        raise CudaOutOfMemory(
            f"spec.resources.train.gpu: the 4-bit base model does not fit the GPU ({error}); take a larger GPU"
        ) from error
    loop = TrainingLoop(model, plan, training, device, dtype, ranks, window=window)
    _pack_if_it_proves(loop, dealt_over)
    if attention_name(model) == row_attention.NAME:
        _compile(loop, context)
    return loop


def _deal_out(model: torch.nn.Module, ranks: Ranks) -> LayerWindow:
    from finetune_trainer.training.dealt_base import deal_out

    if attention_name(model) not in (attention.NAME, row_attention.NAME):
        raise BaseModelRejected(
            "spec.baseModel.uri: the model does not fit one GPU, and cannot be dealt out over several because its "
            "attention runs examples one by one; take a larger GPU or another model"
        )
    window = deal_out(model, ranks)
    logger.info("base model dealt out: processes=%d layers=%d", ranks.count, len(window))
    return window


def _pack_if_it_proves(loop: TrainingLoop, dealt_over: Ranks) -> None:
    """Examples side by side in a row, or one by one with the model's own attention."""
    if attention_name(loop.model) not in (attention.NAME, row_attention.NAME):
        return
    rows = loop.plan.used_rows
    try:
        with loop.autocast():
            why = why_not_packed(loop.model, rows)
    except torch.OutOfMemoryError as error:
        raise loop.out_of_memory(max(map(len, rows))) from error
    if not why:
        return
    if dealt_over.count > 1:
        raise BaseModelRejected(
            "spec.baseModel.uri: the model does not fit one GPU, and cannot be dealt out over several because its "
            f"examples have to be run one by one ({why}); take a larger GPU or another model"
        )
    logger.warning("examples of this model cannot lie side by side and are run one by one, slower: %s", why)
    use_own_attention(loop.model)


def _compile(loop: TrainingLoop, context: StageContext) -> None:
    """Compiled layers, where the longest row shows that they work."""
    context.progress(message="compiling the decoder layers")
    batches = [batch for step in some_steps(loop.plan) for batch in loop.plan.step_micro_batches(step)]
    longest = max(batches, key=len)
    try:
        compile_if_it_proves(loop.model, lambda: loop.batch_loss(longest, len(longest.labels)))
    except torch.OutOfMemoryError as error:
        raise loop.out_of_memory(len(longest)) from error
    restore_random_state(loop.random_state)
