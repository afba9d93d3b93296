"""A sweep: trials are trained one after the other, and the one with the lowest evaluation loss is the run's adapter.

A trial is a training with a run key of its own, so a killed sweep goes on in the middle of one. What came of a trial is
kept in the store until the run's adapter is there. Several pods may share the trials: they meet in the store alone.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from finetune_contract.artifact_layout import adapter_folder, trial_key, trials_prefix
from finetune_contract.artifacts import ArtifactKind, Manifest
from finetune_trainer.artifact_files import Fact, delete_files, fetch_folder, publish_folder, read_manifest
from finetune_trainer.errors import DataRejected, Diverged, InvalidRun, Preempted, StoreRejected
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.store import Store
from finetune_trainer.training import checkpoints, evaluation_loss
from finetune_trainer.training.adapter_files import TRAINING_LOG, adapter_facts, write_adapter, write_report
from finetune_trainer.training.checkpointed_run import run_to_the_end
from finetune_trainer.training.compute_dtype import choose_device, choose_dtype
from finetune_trainer.training.loop import StepRecord, TrainingLoop
from finetune_trainer.training.memory_check import fit_memory
from finetune_trainer.training.packing import TrainingPlan
from finetune_trainer.training.preparation import TrainingFiles, prepare_files, prepare_loop
from finetune_trainer.training.ranks import ALONE, Ranks
from finetune_trainer.training.step_watch import StepWatch
from finetune_trainer.training.sweep_plan import Trial, plan_trials, refuse_all_the_same, share_of, trained
from finetune_trainer.training.sweep_progress import SweepProgress
from finetune_trainer.training.training_report import TrialRow

logger = logging.getLogger(__name__)

_OF_THE_TRIAL = ("exactEvaluationLoss", "diverged", "microBatchSize", "sequenceLength")
"""Facts of a trial that the run's adapter does not repeat."""


@dataclass(frozen=True)
class Outcome:
    """What came of a trial, as its manifest in the store says."""

    trial: Trial
    facts: dict[str, Fact]

    @property
    def evaluation_loss(self) -> float | None:
        """None when it diverged."""
        found = self.facts["exactEvaluationLoss"]
        return None if found is None else float(str(found))

    @property
    def steps(self) -> int:
        """Steps done."""
        return int(str(self.facts["steps"]))


def sweep(context: StageContext, ranks: Ranks) -> tuple[Manifest | None, int]:
    """Train every trial of this pod that is not finished yet, and publish the best when all are.

    Returns:
        The adapter's manifest, None while other pods train their trials; and the steps done before.

    Raises:
        InvalidRun: all trials are the same training.
        DataRejected: there is no question to compare the trials by.
        Diverged: every trial did.
    """
    if ranks.count > 1:
        raise InvalidRun(
            f"spec.training.sweep: is tried by one process, and {ranks.count} were started; start one"
        )
    files = prepare_files(context, ranks)
    if not evaluation_loss.read_questions(context, files.base_folder, evaluation_loss.MOST_QUESTIONS):
        raise DataRejected(
            "spec.training.sweep: the dataset keeps back no question that fits spec.training.sequenceLength, and "
            "trials are compared by them; raise spec.dataset.split.evaluation, or leave the sweep out"
        )
    trials = plan_trials(context.spec.training, files.rows.rows)
    refuse_all_the_same(trials)
    _tell_passed_over(trials)
    share = share_of(context.spec.training, context.environment, on_cluster=context.on_cluster)
    mine = share.of(trials)
    if mine:
        _check_memory_of_the_largest(trials, files)
    progress = SweepProgress(context.progress, trials, share)
    for trial in mine:
        inside = _inside(context, trial, progress)
        progress.begin(trial)
        outcome = _finished(inside, trial)
        if outcome is not None:
            logger.info("trial %d of %d is finished already: %s", trial.number, trial.count, trial.settings)
            progress.goes_on_from(outcome.steps)
        elif (published := _published(context)) is not None:
            return published, progress.from_step
        else:
            _train_trial(inside, trial, files, progress)
            _give_memory_back()
        checkpoints.remove_all(context.store, inside.run_key)
    progress.end()
    return _publish_if_all_are_finished(context, trials), progress.from_step


def _tell_passed_over(trials: Sequence[Trial]) -> None:
    for trial in trials:
        if trial.same_as is not None:
            logger.info(
                "trial %d of %d is the same training as trial %d and is passed over: %s",
                trial.number,
                trial.count,
                trial.same_as,
                trial.settings,
            )


def _published(context: StageContext) -> Manifest | None:
    """The run's adapter. Trials are deleted after it is there: one that is missing may have been."""
    return read_manifest(context.store, adapter_folder(context.run_key))


def _publish_if_all_are_finished(context: StageContext, trials: Sequence[Trial]) -> Manifest | None:
    """The run's adapter, None while another pod trains.

    Every pod has written what came of its trials before it reads those of the others, so the last one sees all. Two
    that do publish the same bytes; to the slower one the trials may be gone by then.
    """
    outcomes: list[Outcome] = []
    for trial in trained(trials):
        outcome = _finished(replace(context, run_key=trial_key(context.run_key, trial.number)), trial)
        if outcome is None:
            logger.info("trial %d of %d is not finished: %s", trial.number, trial.count, trial.settings)
            return _published(context)
        outcomes.append(outcome)
    best = best_of(outcomes)
    try:
        return _publish(context, trials, outcomes, best)
    except StoreRejected:
        if (published := _published(context)) is None:
            raise
        return published


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The lowest evaluation loss; of equals the first.

    Raises:
        Diverged: no trial has one.
    """
    measured = [outcome for outcome in outcomes if outcome.evaluation_loss is not None]
    if not measured:
        told = "; ".join(
            f"trial {outcome.trial.number} ({outcome.trial.settings}): {outcome.facts['diverged']}"
            for outcome in outcomes
        )
        raise Diverged(f"spec.training.sweep: all {len(outcomes)} trials diverge; lower learningRate. {told}")
    return min(measured, key=lambda outcome: outcome.evaluation_loss or 0.0)


def remove_all(store: Store, run_key: str) -> None:
    """For when the run's adapter is stored."""
    delete_files(store, store.list(trials_prefix(run_key)))


def _inside(context: StageContext, trial: Trial, progress: SweepProgress) -> StageContext:
    """The surroundings of a trial: a training with its own run key."""
    return replace(
        context,
        spec=context.spec.model_copy(update={"training": trial.training}),
        run_key=trial_key(context.run_key, trial.number),
        progress=progress,
    )


def _check_memory_of_the_largest(trials: Sequence[Trial], files: TrainingFiles) -> None:
    """Of the settings that a sweep tries, the rank alone takes memory."""
    training = max((trial.training for trial in trials), key=lambda one: one.lora.rank)
    device = choose_device()
    dtype = choose_dtype(training.quantization.compute_dtype, device)
    fit_memory(files.base_folder, training, TrainingPlan.of(files.rows.rows, training), device, dtype)


def _finished(inside: StageContext, trial: Trial) -> Outcome | None:
    """What came of the trial in an earlier attempt; one with other questions or rows cannot be compared."""
    manifest = read_manifest(inside.store, adapter_folder(inside.run_key))
    if manifest is None or manifest.facts.get("sequenceLength") != trial.training.sequence_length:
        return None
    return Outcome(trial, dict(manifest.facts))


def _train_trial(inside: StageContext, trial: Trial, files: TrainingFiles, progress: SweepProgress) -> None:
    """Train and keep what comes of it."""
    loop = prepare_loop(inside, files, ALONE)
    step = checkpoints.resume(loop, inside.store, inside.run_key, inside.work_folder, same_rows=True)
    progress.goes_on_from(step)
    schedule = evaluation_loss.schedule_to_compare(
        loop.plan.total_steps, loop.training.effective_batch_size, loop.training.evaluate_every_steps
    )
    questions = evaluation_loss.read_questions(inside, files.base_folder, schedule.questions)
    measured: float | None = None
    diverged: str | None = None
    try:
        with StepWatch(inside, loop, schedule, questions) as watch:
            run_to_the_end(inside, loop, watch)
            measured = watch.evaluation_loss_at_the_end()
    except Diverged as error:
        diverged = str(error)
    if measured is None and diverged is None:
        if inside.stop_requested():
            raise Preempted(f"told to stop at the end of trial {trial.number} of {trial.count}")
        diverged = "the evaluation loss at the end is no number; lower the learning rate"
    if diverged is not None:
        logger.warning("trial %d of %d is passed over: %s", trial.number, trial.count, diverged)
    _keep(inside, loop, files, measured, diverged)


def _keep(
    inside: StageContext,
    loop: TrainingLoop,
    files: TrainingFiles,
    measured: float | None,
    diverged: str | None,
) -> None:
    facts: dict[str, Fact] = {
        "steps": loop.state.step,
        "tokens": loop.state.tokens,
        "seconds": round(loop.state.seconds, 1),
        "exactEvaluationLoss": measured,
        "diverged": diverged,
        "microBatchSize": loop.training.micro_batch_size,
        "sequenceLength": loop.training.sequence_length,
    }
    folder = inside.work_folder / "trial"
    if diverged is None:
        facts = {**adapter_facts(inside, loop, files), **facts}
        write_adapter(folder, loop, files.base.uri)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    publish_folder(inside.store, adapter_folder(inside.run_key), folder, ArtifactKind.ADAPTER, facts)
    shutil.rmtree(folder)


def _give_memory_back() -> None:
    """The next trial begins with what the first one had."""
    if torch.cuda.is_available():
        torch.compiler.reset()  # compiled layers hold on to their weights
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _publish(
    context: StageContext, trials: Sequence[Trial], outcomes: Sequence[Outcome], best: Outcome
) -> Manifest:
    trial = best.trial
    folder = context.work_folder / "adapter"
    shutil.rmtree(folder, ignore_errors=True)
    fetch_folder(context.store, adapter_folder(trial_key(context.run_key, trial.number)), folder)
    rows = _rows(trials, outcomes, best)
    facts: dict[str, Fact] = {name: fact for name, fact in best.facts.items() if name not in _OF_THE_TRIAL}
    facts |= {
        "runKey": context.run_key,
        "trial": trial.number,
        "trials": trial.count,
        "trialSettings": trial.settings,
        "trialLosses": [_in_words(row) for row in rows],
        "trialsDiverged": sum(outcome.evaluation_loss is None for outcome in outcomes),
        "sweepSteps": sum(outcome.steps for outcome in outcomes),
        "sweepTokens": sum(int(str(outcome.facts["tokens"])) for outcome in outcomes),
        "sweepSeconds": round(math.fsum(float(str(outcome.facts["seconds"])) for outcome in outcomes), 1),
    }
    lines = (folder / TRAINING_LOG).read_text().splitlines()
    log = [StepRecord(**json.loads(line)) for line in lines]
    training = trial.training.model_copy(update={"micro_batch_size": best.facts["microBatchSize"]})
    write_report(folder, context.run_name, training, log, facts, rows)
    logger.info("best of %d trials: %s", trial.count, trial.settings)
    return publish_folder(context.store, adapter_folder(context.run_key), folder, ArtifactKind.ADAPTER, facts)


def _rows(trials: Sequence[Trial], outcomes: Sequence[Outcome], best: Outcome) -> list[TrialRow]:
    """What the page says of each trial; one that was passed over has the numbers of its twin."""
    found = {outcome.trial.number: outcome for outcome in outcomes}
    rows = []
    for trial in trials:
        outcome = found[trial.same_as or trial.number]
        chosen = trial is best.trial
        rows.append(TrialRow(trial.settings, outcome.steps, outcome.evaluation_loss, chosen, trial.same_as))
    return rows


def _in_words(row: TrialRow) -> str:
    """Settings and loss of a trial, as the manifests of adapter and model tell them."""
    return f"{row.settings}: {'diverged' if row.evaluation_loss is None else f'{row.evaluation_loss:.4f}'}"
