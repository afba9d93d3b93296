"""What the log, the metrics file and the page know of a run, also of one that was stopped and went on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from finetune_contract.artifact_layout import TRAINING_REPORT_FILE, adapter_folder
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.errors import Preempted
from finetune_trainer.training.adapter_files import TRAINING_LOG
from finetune_trainer.training.prometheus_text import METRICS_FILE
from finetune_trainer.training.step_watch import memory_in_use
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import (
    RUN_KEY,
    context_for,
    example,
    publish_dataset,
    spec_for,
)

ROWS = [example(number) for number in range(10)]
QUESTIONS = [example(number) for number in range(20, 24)]


class StopAfterStep:
    """Says stop once the metrics file speaks of the step."""

    def __init__(self, folder: Path, step: int) -> None:
        self.file, self.line = (
            folder / "work" / METRICS_FILE,
            f'finetune_training_step{{run="tiny"}} {step}\n',
        )

    def __call__(self) -> bool:
        return self.file.exists() and self.line in self.file.read_text()


def log_of(folder: Path) -> list[dict[str, object]]:
    path = folder / "store" / adapter_folder(RUN_KEY) / TRAINING_LOG
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_stopped_run_shows_where_it_was_kept_and_where_it_went_on(base: Path, tmp_path: Path) -> None:
    spec = spec_for(base, evaluateEverySteps=2)
    stopped = context_for(tmp_path, spec, StopAfterStep(tmp_path, 4))
    publish_dataset(stopped, ROWS, QUESTIONS)
    with pytest.raises(Preempted):
        train(stopped)
    (tmp_path / "work" / METRICS_FILE).unlink()

    train(context_for(tmp_path, spec))

    log = log_of(tmp_path)
    assert [row["step"] for row in log if row["checkpoint"]][:1] == [4]
    assert [row["step"] for row in log if row["resumed"]] == [5]
    assert [row["step"] for row in log if row["evaluation_loss"] is not None] == [1, 2, 4, 6]
    page = (tmp_path / "store" / adapter_folder(RUN_KEY) / TRAINING_REPORT_FILE).read_text()
    assert "gone on from a checkpoint" in page


def test_the_metrics_file_holds_the_last_step_and_all_tokens_of_both_attempts(
    base: Path, tmp_path: Path
) -> None:
    spec = spec_for(base)
    stopped = context_for(tmp_path, spec, StopAfterStep(tmp_path, 2))
    publish_dataset(stopped, ROWS)
    with pytest.raises(Preempted):
        train(stopped)
    (tmp_path / "work" / METRICS_FILE).unlink()
    context = context_for(tmp_path, spec)

    train(context)

    manifest = read_manifest(context.store, adapter_folder(RUN_KEY))
    assert manifest is not None
    lines = (tmp_path / "work" / METRICS_FILE).read_text().splitlines()
    assert 'finetune_training_step{run="tiny"} 6' in lines
    assert 'finetune_training_planned_steps{run="tiny"} 6' in lines
    assert f'finetune_training_tokens_total{{run="tiny"}} {manifest.facts["tokens"]}' in lines
    assert not any("evaluation_loss" in line for line in lines)


def test_a_metrics_file_that_cannot_be_written_is_named_once_and_training_ends_well(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "work" / METRICS_FILE / "in-the-way").mkdir(parents=True)
    context = context_for(tmp_path, spec_for(base))
    publish_dataset(context, ROWS)

    report = train(context)

    assert report.training is not None
    assert report.training.steps == 6
    assert caplog.text.count(f"{METRICS_FILE} cannot be written") == 1


def test_memory_is_measured_and_the_adapter_says_the_most(base: Path, tmp_path: Path) -> None:
    context = context_for(tmp_path, spec_for(base))
    publish_dataset(context, ROWS)

    train(context)

    used = [int(str(row["memory_bytes"])) for row in log_of(tmp_path)]
    assert min(used) > 50 * 2**20
    manifest = read_manifest(context.store, adapter_folder(RUN_KEY))
    assert manifest is not None
    assert manifest.facts["memoryBytes"] == max(used)


def test_on_a_gpu_memory_is_the_most_that_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda _: 12_345)

    assert memory_in_use(torch.device("cuda")) == 12_345
