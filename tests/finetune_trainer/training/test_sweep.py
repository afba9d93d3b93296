"""A sweep: the best trial becomes the adapter, whatever ends the pod in between, and nothing else is left."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finetune_contract.artifact_layout import TRAINING_REPORT_FILE, adapter_folder, run_folder
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.sweep_trials import trials_of
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.errors import DataRejected, Diverged, InvalidRun, Preempted
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import sweep
from finetune_trainer.training.loop import TrainingLoop
from finetune_trainer.training.ranks import Ranks
from finetune_trainer.training.sweep_plan import Trial
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.test_train_killed import DyingStore, Killed
from tests.finetune_trainer.training.tiny_model import (
    RUN_KEY,
    SilentProgress,
    context_for,
    example,
    publish_dataset,
    spec_for,
)
from tests.finetune_trainer.training.tiny_run import assert_same_run

ROWS = [example(number) for number in range(10)]
QUESTIONS = [example(number) for number in range(20, 24)]
GRID = {"learningRate": [0.0005, 0.01], "rank": [2, 4]}
TOO_HIGH = 0.05


class Messages(SilentProgress):
    """Also remembers how far the whole was said to be, and in which words."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[int, int, str]] = []

    def __call__(self, step: int = 0, total_steps: int = 0, *, message: str = "", **facts: object) -> None:  # type: ignore[override]
        super().__call__(step, total_steps, message=message, **facts)  # type: ignore[arg-type]
        if facts.get("loss") is not None:
            self.said.append((step, total_steps, message))


def sweep_context(
    folder: Path, base: Path, grid: object = GRID, stop_requested: Callable[[], bool] = lambda: False
) -> StageContext:
    context = context_for(folder, spec_for(base, sweep=grid), stop_requested)
    publish_dataset(context, ROWS, QUESTIONS)
    return dataclasses.replace(context, progress=Messages())


def said(context: StageContext) -> list[tuple[int, int, str]]:
    assert isinstance(context.progress, Messages)
    return context.progress.said


def facts_of(context: StageContext) -> dict[str, object]:
    manifest = read_manifest(context.store, adapter_folder(RUN_KEY))
    assert manifest is not None
    return dict(manifest.facts)


def plain_run(folder: Path, spec: FineTuneRunSpec, trial: int) -> dict[str, object]:
    """The training that the trial is, without a sweep."""
    training = trials_of(spec.training)[trial - 1].model_copy(update={"evaluate_every_steps": 100})
    context = context_for(folder, spec.model_copy(update={"training": training}))
    publish_dataset(context, ROWS, QUESTIONS)
    train(context)
    return facts_of(context)


def files_of_the_run(context: StageContext) -> set[str]:
    return {key.removeprefix(f"{run_folder(RUN_KEY)}/").split("/")[0] for key in context.store.list("runs/")}


def diverge_at(monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
    """Trials with this rate have a loss that is no number from their second step on."""
    step = TrainingLoop._step

    def step_or_diverge(loop: TrainingLoop, stop_requested: Callable[[], bool]) -> object:
        if loop.training.learning_rate == rate and loop.state.step == 1:
            raise Diverged("spec.training.learningRate: the loss is nan at step 2; lower the learning rate")
        return step(loop, stop_requested)

    monkeypatch.setattr(TrainingLoop, "_step", step_or_diverge)


@pytest.fixture(scope="module")
def swept(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    train(sweep_context(folder, base))
    return folder


def test_the_trial_with_the_lowest_loss_is_the_adapter_of_a_plain_run_with_its_settings(
    swept: Path, base: Path, tmp_path: Path
):
    context = context_for(swept, spec_for(base, sweep=GRID))
    plain = [plain_run(tmp_path / str(trial), context.spec, trial) for trial in (1, 2, 3, 4)]

    facts = facts_of(context)

    losses = [float(str(one["evaluationLoss"])) for one in plain]
    assert len(set(losses)) == 4
    assert facts["evaluationLoss"] == min(losses)
    assert facts["trial"] == losses.index(min(losses)) + 1
    assert_same_run(swept, tmp_path / str(facts["trial"]))


def test_nothing_of_the_trials_is_left_and_the_page_tells_of_all(swept: Path, base: Path):
    context = context_for(swept, spec_for(base, sweep=GRID))

    assert files_of_the_run(context) == {"adapter"}
    page = (swept / "store" / adapter_folder(RUN_KEY) / TRAINING_REPORT_FILE).read_text()
    assert "Best of 4 trials" in page
    assert "learningRate 0.0005, rank 2" in page
    assert page.count("<strong>chosen</strong>") == 1


def test_progress_counts_the_steps_of_all_trials_and_the_report_names_the_best(base: Path, tmp_path: Path):
    context = sweep_context(tmp_path, base, {"rank": [2, 4]})

    report = train(context)

    assert [step for step, _, _ in said(context)] == list(range(1, 13))
    assert {total for _, total, _ in said(context)} == {12}
    assert [said(context)[step][2] for step in (0, 11)] == ["trial 1 of 2: rank 2", "trial 2 of 2: rank 4"]
    assert report.message.startswith("best of 2 trials: rank ")
    assert report.training is not None
    assert (report.training.steps, report.training.resumed_from_step) == (12, 0)


def test_a_pod_that_is_stopped_in_the_second_trial_goes_on_there_to_the_same_adapter(
    swept: Path, base: Path, tmp_path: Path
):
    told: list[tuple[int, int, str]] = []
    stopped = sweep_context(tmp_path, base, stop_requested=lambda: bool(told) and told[-1][0] >= 9)
    told = said(stopped)
    with pytest.raises(Preempted, match="told to stop after step 3 of 6"):
        train(stopped)
    again = sweep_context(tmp_path, base)

    report = train(again)

    assert said(again)[0][:2] == (10, 24)
    assert report.training is not None
    assert (report.training.steps, report.training.resumed_from_step) == (24, 9)
    assert_same_run(tmp_path, swept)
    assert files_of_the_run(again) == {"adapter"}


@pytest.mark.parametrize("changes", [2, 5, 9, 14, 22, 30])
def test_a_pod_that_dies_in_a_change_of_the_store_loses_nothing_and_leaves_nothing(
    swept: Path, base: Path, tmp_path: Path, changes: int
):
    context = sweep_context(tmp_path, base)
    often = context.spec.training.model_copy(update={"checkpoint_every_seconds": 0})
    context = dataclasses.replace(context, spec=context.spec.model_copy(update={"training": often}))
    with pytest.raises(Killed):
        train(dataclasses.replace(context, store=DyingStore(tmp_path / "store", 10 * changes)))

    train(context)

    assert_same_run(tmp_path, swept)
    assert files_of_the_run(context) == {"adapter"}


def test_a_stop_while_the_last_loss_is_measured_costs_no_trial_its_loss(
    swept: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr("finetune_trainer.training.evaluation_loss.measure", lambda *_: None)
        patch.setattr("finetune_trainer.training.evaluation_loss.measure_or_fail", lambda *_: None)
        told: list[tuple[int, int, str]] = []
        stopped = sweep_context(tmp_path, base)
        told = said(stopped)
        stopped = dataclasses.replace(stopped, stop_requested=lambda: bool(told) and told[-1][0] >= 6)
        with pytest.raises(Preempted, match="at the end of trial 1 of 4"):
            train(stopped)

    train(sweep_context(tmp_path, base))

    assert_same_run(tmp_path, swept)


def test_a_finished_sweep_is_not_trained_again_and_what_was_left_of_it_goes(base: Path, tmp_path: Path):
    context = sweep_context(tmp_path, base, {"rank": [2, 4]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "remove_all", lambda *_: None)
        first = train(context)
    assert files_of_the_run(context) == {"adapter", "trial-1", "trial-2"}
    again = sweep_context(tmp_path, base, {"rank": [2, 4]})

    report = train(again)

    assert report.training == first.training
    assert said(again) == []
    assert files_of_the_run(again) == {"adapter"}


def test_epochs_that_come_to_the_same_steps_are_trained_once(base: Path, tmp_path: Path):
    """Ten rows in steps of four, six steps at most: 2.4 epochs are the most that is trained."""
    context = sweep_context(tmp_path, base, {"rank": [2, 4], "epochs": [1, 3, 4]})

    report = train(context)

    assert report.training is not None
    assert report.training.steps == 2 * (2 + 6)
    assert {total for _, total, _ in said(context)} == {16}
    assert [said(context)[step][2] for step in (2, 8)] == [
        "trial 2 of 6: rank 2, epochs 3",
        "trial 4 of 6: rank 4, epochs 1",
    ]
    page = (tmp_path / "store" / adapter_folder(RUN_KEY) / TRAINING_REPORT_FILE).read_text()
    assert page.count("the same training as trial") == 2
    assert 'rank 4, epochs 4 <span class="soft">the same training as trial 5</span>' in page
    assert page.count("<strong>chosen</strong>") == 1


def test_a_sweep_whose_trials_are_all_the_same_is_refused_before_anything_is_trained(
    base: Path, tmp_path: Path
):
    context = sweep_context(tmp_path, base, {"epochs": [3, 4]})

    with pytest.raises(
        InvalidRun, match=r"sweep.epochs: all 2 trials are the same training of 6 steps; raise or"
    ):
        train(context)

    assert files_of_the_run(context) == set()


def test_a_trial_that_diverges_is_passed_over(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    diverge_at(monkeypatch, TOO_HIGH)
    context = sweep_context(tmp_path, base, {"learningRate": [TOO_HIGH, 0.01]})

    report = train(context)

    facts = facts_of(context)
    assert (facts["trial"], facts["trialsDiverged"]) == (2, 1)
    assert report.message.startswith("best of 2 trials: learningRate 0.01, ")
    page = (tmp_path / "store" / adapter_folder(RUN_KEY) / TRAINING_REPORT_FILE).read_text()
    assert "diverged" in page
    assert files_of_the_run(context) == {"adapter"}


def test_a_sweep_that_diverges_whole_names_every_trial(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    diverge_at(monkeypatch, TOO_HIGH)
    context = context_for(tmp_path, spec_for(base, learningRate=TOO_HIGH, sweep={"rank": [2, 4]}))
    publish_dataset(context, ROWS, QUESTIONS)

    with pytest.raises(Diverged, match=r"all 2 trials diverge; .*trial 1 \(rank 2\): .*trial 2 \(rank 4\): "):
        train(context)


def test_of_equal_trials_the_first_is_taken(base: Path):
    training = spec_for(base, sweep={"rank": [2, 4, 8]}).training
    outcomes = [
        sweep.Outcome(Trial(number, 3, training, "", 0), {"exactEvaluationLoss": loss})
        for number, loss in ((1, 1.5), (2, 1.25), (3, 1.25))
    ]

    assert sweep.best_of(outcomes).trial.number == 2


def test_a_sweep_without_questions_is_refused_before_anything_is_trained(base: Path, tmp_path: Path):
    context = context_for(tmp_path, spec_for(base, sweep=GRID))
    publish_dataset(context, ROWS)

    with pytest.raises(DataRejected, match=r"spec.training.sweep: .* raise spec.dataset.split.evaluation"):
        train(context)

    assert files_of_the_run(context) == set()


def test_a_sweep_by_several_processes_is_refused(base: Path, tmp_path: Path):
    with pytest.raises(InvalidRun, match="by one process, and 2 were started"):
        sweep.sweep(sweep_context(tmp_path, base), Ranks(count=2))


def test_on_a_gpu_the_memory_of_a_trial_is_given_back(monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: done.append("reset"))

    sweep._give_memory_back()

    assert done == ["emptied", "reset"]
