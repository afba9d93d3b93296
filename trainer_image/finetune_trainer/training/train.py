"""The train stage: rows in, adapter out. May be killed at any moment and started again."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from finetune_contract.artifact_layout import (
    EVALUATION_FILE,
    TRAIN_FILE,
    TRAINING_REPORT_FILE,
    adapter_folder,
    dataset_folder,
)
from finetune_contract.artifacts import ArtifactKind, Example, Manifest
from finetune_contract.stage_protocol import Stage, StageReport, TrainingFacts
from finetune_trainer.artifact_files import Fact, fetch_folder, publish_folder, read_manifest
from finetune_trainer.errors import CudaOutOfMemory, DataRejected, Preempted, StoreUnavailable
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import (
    base_model,
    checkpoints,
    process_launch,
    row_attention,
    training_report,
)
from finetune_trainer.training.adapter import add_adapter, attention_name, load_quantized_base
from finetune_trainer.training.compiled_layers import compile_if_it_proves
from finetune_trainer.training.compute_dtype import choose_device, choose_dtype
from finetune_trainer.training.encoding import EncodedRows, encode_rows, load_tokenizer
from finetune_trainer.training.loop import StepRecord, TrainingLoop, restore_random_state
from finetune_trainer.training.memory_check import fit_memory, some_steps
from finetune_trainer.training.packing import TrainingPlan
from finetune_trainer.training.ranks import Ranks, joined, ranks_of
from finetune_trainer.training.step_watch import StepWatch, last_evaluation_loss, watch_steps

logger = logging.getLogger(__name__)

TRAINING_LOG = "training_log.jsonl"


def train(context: StageContext) -> StageReport:
    """Train the adapter, or find that it is there already."""
    key = adapter_folder(context.run_key)
    manifest = read_manifest(context.store, key)
    if manifest is not None:
        logger.info("the adapter is there already: uri=%s", context.store.uri(key))
        checkpoints.remove_all(context.store, context.run_key)
        return _report(manifest, resumed_from_step=0)
    if process_launch.is_needed(context.environment):
        return process_launch.run_processes(
            process_launch.own_arguments(),
            {**process_launch.own_environment(), **context.environment},
            context.work_folder,
            context.stop_requested,
        )
    ranks = ranks_of(context.environment)
    if not ranks.is_first:
        context = replace(context, progress=_say_nothing)
    with joined(ranks, choose_device(ranks.on_this_node)):
        return _train_adapter(context, ranks)


def _say_nothing(*_: object, **__: object) -> None:
    """The progress of a process that is not the first."""


def _train_adapter(context: StageContext, ranks: Ranks) -> StageReport:
    base, base_folder, rows = _prepare_files(context, ranks)
    loop = _prepare_loop(context, base_folder, rows, ranks)
    own_folder = context.work_folder / f"process-{ranks.number}" if ranks.count > 1 else context.work_folder
    resumed_from = checkpoints.resume(loop, context.store, context.run_key, own_folder)
    if not ranks.agree(resumed_from, loop.device):
        raise StoreUnavailable(
            "the processes of this training found different checkpoints; the next attempt looks again"
        )
    if not ranks.is_first:
        return _follow(context, loop, resumed_from)
    with watch_steps(context, loop, base_folder) as watch:
        _run(context, loop, watch)
    manifest = _publish_adapter(context, loop, base, rows)
    checkpoints.remove_all(context.store, context.run_key)
    return _report(manifest, resumed_from)


def _prepare_files(
    context: StageContext, ranks: Ranks
) -> tuple[base_model.ResolvedBaseModel, Path, EncodedRows]:
    """Base model and rows: the first process of a node fetches them, the others find them there."""
    if ranks.on_this_node:
        ranks.wait()
    base = base_model.resolve(context)
    base_folder = base_model.fetch(context, base)
    if not ranks.on_this_node:
        _fetch_rows(context)
        ranks.wait()
    return base, base_folder, _read_rows(context, base_folder)


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


def _prepare_loop(context: StageContext, base_folder: Path, rows: EncodedRows, ranks: Ranks) -> TrainingLoop:
    training = context.spec.training
    device = choose_device(ranks.on_this_node)
    dtype = choose_dtype(training.quantization.compute_dtype, device)
    plan = TrainingPlan.of(rows.rows, training)
    training = fit_memory(base_folder, training, plan, device, dtype).training
    plan = replace(plan, micro_batch_size=training.micro_batch_size)
    context.progress(message=f"loading the base model in 4 bits on {device.type}")
    try:
        model = add_adapter(load_quantized_base(base_folder, training, device, dtype), training)
    except torch.OutOfMemoryError as error:
        raise CudaOutOfMemory(
            f"spec.resources.train.gpu: the 4-bit base model does not fit the GPU ({error}); take a larger GPU"
        ) from error
    loop = TrainingLoop(model, plan, training, device, dtype, ranks)
    if attention_name(model) == row_attention.NAME:
        _compile(loop, context)
    return loop


def _compile(loop: TrainingLoop, context: StageContext) -> None:
    """Compiled layers and rows of whole blocks, where the longest row shows that they work."""
    context.progress(message="compiling the decoder layers")
    batches = [batch for step in some_steps(loop.plan) for batch in loop.plan.step_micro_batches(step)]
    longest = max(batches, key=len)
    loop.fill_rows = True
    try:
        loop.fill_rows = compile_if_it_proves(
            loop.model, lambda: loop.batch_loss(longest, len(longest.labels))
        )
    except torch.OutOfMemoryError as error:
        raise loop.out_of_memory(len(longest)) from error
    restore_random_state(loop.random_state)


def _follow(context: StageContext, loop: TrainingLoop, resumed_from: int) -> StageReport:
    """The steps of a process that is not the first: it adds its gradients, and leaves files to the first."""
    for _ in loop.steps(context.stop_requested):
        pass
    if loop.state.step < loop.plan.total_steps:
        raise Preempted(f"told to stop after step {loop.state.step} of {loop.plan.total_steps}")
    return StageReport(
        stage=Stage.TRAIN,
        message=f"{loop.state.step} steps beside the first process",
        training=TrainingFacts(
            steps=loop.state.step,
            final_loss=loop.state.log[-1].loss,
            tokens=loop.state.tokens,
            tokens_per_second=round(loop.state.tokens / loop.state.seconds, 1) if loop.state.seconds else 0.0,
            seconds=loop.state.seconds,
            resumed_from_step=resumed_from,
        ),
    )


def _run(context: StageContext, loop: TrainingLoop, watch: StepWatch) -> None:
    """All steps that are left; a checkpoint on time, when told to stop, and at the end."""
    total = loop.plan.total_steps
    saved_at, saved_step = time.monotonic(), loop.state.step
    for record in loop.steps(context.stop_requested):
        watch.after_step(record)
        if (
            time.monotonic() - saved_at >= context.spec.training.checkpoint_every_seconds
            and record.step < total
        ):
            if _save(context, loop) is None:
                saved_step = record.step
            saved_at = time.monotonic()
    failure = _save(context, loop) if loop.state.step > saved_step else None
    if loop.state.step < total:
        stopped = f"told to stop after step {loop.state.step} of {total}"
        if failure is not None:
            raise Preempted(
                f"{stopped}, and the checkpoint could not be written ({failure}); "
                f"the next attempt goes on from step {saved_step}"
            ) from failure
        raise Preempted(f"{stopped}; the next attempt goes on from there")


def _save(context: StageContext, loop: TrainingLoop) -> Exception | None:
    """A checkpoint, or why there is none: a full disk or a silent store now must not cost the steps still to come."""
    loop.state.mark_checkpoint()
    try:
        checkpoints.save(loop, context.store, context.run_key, context.work_folder)
    except (StoreUnavailable, SafetensorError, OSError) as error:
        loop.state.mark_checkpoint(made=False)
        logger.warning("no checkpoint of step %d: %s", loop.state.step, error)
        return error
    return None


def _publish_adapter(
    context: StageContext, loop: TrainingLoop, base: base_model.ResolvedBaseModel, rows: EncodedRows
) -> Manifest:
    folder = context.work_folder / "adapter"
    shutil.rmtree(folder, ignore_errors=True)
    loop.model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]
    _name_base(folder / "adapter_config.json", base.uri)
    _write_log(folder / TRAINING_LOG, loop.state.log)
    training, log = loop.training, loop.state.log
    evaluation_loss = last_evaluation_loss(log)
    facts: dict[str, Fact] = {
        "runKey": context.run_key,
        "baseModel": base.uri,
        "baseModelDigest": base.digest,
        "datasetDigest": context.dataset_digest,
        "steps": loop.state.step,
        "finalLoss": round(log[-1].loss, 4),
        "evaluationLoss": None if evaluation_loss is None else round(evaluation_loss, 4),
        "tokens": loop.state.tokens,
        "seconds": round(loop.state.seconds, 1),
        "memoryBytes": max(record.memory_bytes for record in log),
        "rows": len(rows.rows),
        "rowsTooLong": len(rows.too_long),
        "rowsBrokenOff": len(rows.broken_off),
        "quantization": training.quantization.type,
        "computeDtype": str(loop.dtype).removeprefix("torch."),
        "device": loop.device.type,
        "processes": loop.ranks.count,
        "seed": training.seed,
    }
    page = training_report.render_report(context.run_name, log, training_report.describe(training, facts))
    (folder / TRAINING_REPORT_FILE).write_text(page, encoding="utf-8")
    return publish_folder(context.store, adapter_folder(context.run_key), folder, ArtifactKind.ADAPTER, facts)


def _name_base(adapter_config: Path, uri: str) -> None:
    """The adapter names the base by its address, not by the folder of this machine, and lists layers in order."""
    config = json.loads(adapter_config.read_text())
    config["base_model_name_or_path"] = uri
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    adapter_config.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    readme = adapter_config.with_name("README.md")
    readme.unlink(missing_ok=True)


def _write_log(path: Path, log: list[StepRecord]) -> None:
    path.write_text("".join(json.dumps(asdict(record)) + "\n" for record in log))


def _report(manifest: Manifest, resumed_from_step: int) -> StageReport:
    facts = manifest.facts
    seconds, tokens = float(str(facts["seconds"])), int(str(facts["tokens"]))
    training = TrainingFacts(
        steps=int(str(facts["steps"])),
        final_loss=float(str(facts["finalLoss"])),
        tokens=tokens,
        tokens_per_second=round(tokens / seconds, 1) if seconds else 0.0,
        seconds=seconds,
        resumed_from_step=resumed_from_step,
    )
    return StageReport(
        stage=Stage.TRAIN,
        message=f"{training.steps} steps, loss {training.final_loss:.3f}, {training.tokens_per_second:.0f} tokens/s",
        training=training,
    )
