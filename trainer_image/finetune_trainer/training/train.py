"""The train stage: rows in, adapter out. May be killed at any moment and started again."""

from __future__ import annotations

import logging
from dataclasses import replace

from finetune_contract.artifact_layout import adapter_folder
from finetune_contract.artifacts import ArtifactKind, Manifest
from finetune_contract.stage_protocol import Stage, StageReport, TrainingFacts
from finetune_trainer.artifact_files import publish_folder, read_manifest
from finetune_trainer.errors import Preempted, StoreUnavailable
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import checkpoints, process_launch, sweep
from finetune_trainer.training.adapter_files import adapter_facts, write_adapter, write_report
from finetune_trainer.training.checkpointed_run import run_to_the_end
from finetune_trainer.training.compute_dtype import choose_device
from finetune_trainer.training.loop import TrainingLoop
from finetune_trainer.training.preparation import TrainingFiles, prepare_files, prepare_loop
from finetune_trainer.training.ranks import Ranks, joined, ranks_of
from finetune_trainer.training.step_watch import watch_steps
from finetune_trainer.workspace_errors import TRAIN_SCRATCH, workspace_errors

logger = logging.getLogger(__name__)


def train(context: StageContext) -> StageReport:
    """Train the adapter, or find that it is there already.

    Raises:
        WorkspaceUnusable: the work folder is full or read-only.
    """
    with workspace_errors(context.work_folder, TRAIN_SCRATCH):
        return _train(context)


def _train(context: StageContext) -> StageReport:
    key = adapter_folder(context.run_key)
    manifest = read_manifest(context.store, key)
    if manifest is not None:
        logger.info("the adapter is there already: uri=%s", context.store.uri(key))
        _remove_what_led_to_it(context)
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
        if context.spec.training.sweep is None:
            return _train_adapter(context, ranks)
        manifest, resumed_from = sweep.sweep(context, ranks)
    if manifest is None:
        words = "the trials of this pod are finished, and others not yet: the pod that ends last publishes the best"
        return StageReport(stage=Stage.TRAIN, message=words)
    _remove_what_led_to_it(context)
    return _report(manifest, resumed_from)


def _remove_what_led_to_it(context: StageContext) -> None:
    """Nothing but the adapter stays."""
    checkpoints.remove_all(context.store, context.run_key)
    if context.spec.training.sweep is not None:
        sweep.remove_all(context.store, context.run_key)


def _say_nothing(*_: object, **__: object) -> None:
    """The progress of a process that is not the first."""


def _train_adapter(context: StageContext, ranks: Ranks) -> StageReport:
    files = prepare_files(context, ranks)
    loop = prepare_loop(context, files, ranks)
    own_folder = context.work_folder / f"process-{ranks.number}" if ranks.count > 1 else context.work_folder
    resumed_from = checkpoints.resume(loop, context.store, context.run_key, own_folder)
    if not ranks.agree(resumed_from, loop.device):
        raise StoreUnavailable(
            "the processes of this training found different checkpoints; the next attempt looks again"
        )
    if not ranks.is_first:
        return _follow(context, loop, files, resumed_from)
    with watch_steps(context, loop, files.base_folder) as watch:
        run_to_the_end(context, loop, watch)
    manifest = _publish_adapter(context, loop, files)
    checkpoints.remove_all(context.store, context.run_key)
    return _report(manifest, resumed_from)


def _follow(
    context: StageContext, loop: TrainingLoop, files: TrainingFiles, resumed_from: int
) -> StageReport:
    """The steps of a process that is not the first: it adds its gradients, and leaves files to the first."""
    watch = watch_steps(context, loop, files.base_folder) if loop.window is not None else None
    for record in loop.steps(context.stop_requested):
        if watch is not None:
            watch.measure(record.step)
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


def _publish_adapter(context: StageContext, loop: TrainingLoop, files: TrainingFiles) -> Manifest:
    folder = context.work_folder / "adapter"
    write_adapter(folder, loop, files.base.uri)
    facts = adapter_facts(context, loop, files)
    write_report(folder, context.run_name, loop.training, loop.state.log, facts)
    return publish_folder(context.store, adapter_folder(context.run_key), folder, ArtifactKind.ADAPTER, facts)


def _report(manifest: Manifest, resumed_from_step: int) -> StageReport:
    """Of a sweep the steps, tokens and seconds of all trials: progress counted those."""
    facts = manifest.facts
    is_sweep = "trials" in facts
    seconds = float(str(facts["sweepSeconds" if is_sweep else "seconds"]))
    tokens = int(str(facts["sweepTokens" if is_sweep else "tokens"]))
    training = TrainingFacts(
        steps=int(str(facts["sweepSteps" if is_sweep else "steps"])),
        final_loss=float(str(facts["finalLoss"])),
        tokens=tokens,
        tokens_per_second=round(tokens / seconds, 1) if seconds else 0.0,
        seconds=seconds,
        resumed_from_step=resumed_from_step,
    )
    message = (
        f"{training.steps} steps, loss {training.final_loss:.3f}, {training.tokens_per_second:.0f} tokens/s"
    )
    if is_sweep:
        best = f"best of {facts['trials']} trials: {facts['trialSettings']}"
        message = f"{best}, evaluation loss {facts['evaluationLoss']}; {message}"
    return StageReport(stage=Stage.TRAIN, message=message, training=training)
