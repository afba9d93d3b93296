from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_contract.artifact_layout import (
    TRAINING_REPORT_FILE,
    adapter_folder,
    checkpoint_folder,
    checkpoints_folder,
)
from finetune_contract.stage_protocol import StageReport
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.errors import CudaOutOfMemory, DataRejected, Diverged, Preempted
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import checkpoints
from finetune_trainer.training.train import TRAINING_LOG, train
from tests.finetune_trainer.training.tiny_model import (
    RUN_KEY,
    SilentProgress,
    context_for,
    example,
    publish_dataset,
    save_tiny_model,
    spec_for,
)

ROWS = [example(number) for number in range(10)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


class StopAfter:
    """Says stop once it was asked so often."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def run(folder: Path, base: Path, stop_after: int | None = None, **training: object) -> StageReport:
    spec = spec_for(base, **training)
    context = (
        context_for(folder, spec, StopAfter(stop_after))
        if stop_after is not None
        else context_for(folder, spec)
    )
    publish_dataset(context, ROWS)
    return train(context)


def losses(folder: Path) -> list[float]:
    path = folder / "store" / adapter_folder(RUN_KEY) / TRAINING_LOG
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(
        folder / "store" / adapter_folder(RUN_KEY) / "adapter_model.safetensors"
    )
    return weights


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder, base)
    return folder


def test_training_lowers_the_loss_and_publishes_the_adapter_with_its_facts(undisturbed: Path, base: Path):
    manifest = read_manifest(context_for(undisturbed, spec_for(base)).store, adapter_folder(RUN_KEY))

    assert manifest is not None
    assert losses(undisturbed)[-1] < losses(undisturbed)[0]
    assert manifest.facts["steps"] == 6
    assert manifest.facts["finalLoss"] == round(losses(undisturbed)[-1], 4)
    assert {"adapter_config.json", "adapter_model.safetensors", TRAINING_LOG, TRAINING_REPORT_FILE} == {
        f.path for f in manifest.files
    }


def test_every_linear_layer_of_the_decoder_is_adapted_and_the_head_is_not(undisturbed: Path):
    layers = {name.split(".")[-3] for name in adapter_weights(undisturbed)}

    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(
    undisturbed: Path, base: Path, tmp_path: Path
):
    run(tmp_path / "again", base)
    run(tmp_path / "other", base, seed=1)

    assert losses(tmp_path / "again") == losses(undisturbed)
    assert losses(tmp_path / "other") != losses(undisturbed)


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7])
def test_a_run_that_is_told_to_stop_and_started_again_ends_as_if_nothing_had_happened(
    undisturbed: Path, base: Path, tmp_path: Path, stop_after: int
):
    with pytest.raises(Preempted, match="the next attempt goes on from there"):
        run(tmp_path, base, stop_after=stop_after)
    assert not (tmp_path / "store" / adapter_folder(RUN_KEY)).exists()

    report = run(tmp_path, base)

    assert report.training is not None
    assert losses(tmp_path) == losses(undisturbed)
    for name, weight in adapter_weights(undisturbed).items():
        torch.testing.assert_close(adapter_weights(tmp_path)[name], weight, rtol=0, atol=0)
    assert context_for(tmp_path, spec_for(base)).store.list(checkpoints_folder(RUN_KEY)) == []


def interrupted(folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> StageContext:
    """A run with a checkpoint after every step that dies in step 5."""
    monkeypatch.setattr(
        "finetune_trainer.training.train.time.monotonic", iter(range(0, 10**9, 1000)).__next__
    )
    context = context_for(folder, spec_for(base))
    publish_dataset(context, ROWS)
    progress = context.progress
    assert isinstance(progress, SilentProgress)
    with monkeypatch.context() as patch:
        patch.setattr(progress, "losses", _DiesAt(5))
        with pytest.raises(RuntimeError, match="killed"):
            train(context)
    return context


class _DiesAt(list[float]):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def append(self, loss: float) -> None:
        super().append(loss)
        if len(self) == self.step:
            raise RuntimeError("killed")


def test_a_killed_run_goes_on_from_the_last_checkpoint_and_two_are_kept(
    undisturbed: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    context = interrupted(tmp_path, base, monkeypatch)
    assert sorted(p.name for p in (tmp_path / "store" / checkpoints_folder(RUN_KEY)).iterdir()) == [
        "step-00000003",
        "step-00000004",
    ]

    report = train(context)

    assert report.training is not None
    assert report.training.resumed_from_step == 4
    assert losses(tmp_path) == losses(undisturbed)


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    undisturbed: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
):
    context = interrupted(tmp_path, base, monkeypatch)
    damaged = tmp_path / "store" / checkpoint_folder(RUN_KEY, 4) / name
    damaged.write_bytes(damaged.read_bytes()[:-5] + b"xxxxx")

    report = train(context)

    assert report.training is not None
    assert report.training.resumed_from_step == 3
    assert "checkpoint of step 4 is damaged" in caplog.text
    assert losses(tmp_path) == losses(undisturbed)


def test_a_checkpoint_holds_no_pickle(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted(tmp_path, base, monkeypatch)

    files = {p.suffix for p in (tmp_path / "store" / checkpoint_folder(RUN_KEY, 4)).iterdir()}

    assert files == {".safetensors", ".json"}


def test_a_finished_run_is_not_trained_again(base: Path, tmp_path: Path):
    first = run(tmp_path, base)
    context = context_for(tmp_path, spec_for(base))

    again = train(context)

    assert again.training == first.training
    assert isinstance(context.progress, SilentProgress)
    assert context.progress.losses == []


def test_gradient_checkpointing_changes_memory_and_not_the_losses(
    undisturbed: Path, base: Path, tmp_path: Path
):
    run(tmp_path, base, gradientCheckpointing=True)

    assert losses(tmp_path) == pytest.approx(losses(undisturbed), rel=1e-4)


def test_rows_that_are_all_too_long_are_refused_with_the_field(base: Path, tmp_path: Path):
    with pytest.raises(DataRejected, match=r"spec.training.sequenceLength: none of 10 .* fits 64 tokens"):
        run(tmp_path, base, sequenceLength=64)


def test_a_loss_that_is_no_number_ends_the_run(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "finetune_trainer.training.loop.summed_loss",
        lambda model, *_: sum(p.sum() for p in model.parameters() if p.requires_grad) * float("nan"),
    )

    with pytest.raises(Diverged, match=r"spec.training.learningRate: the loss is nan at step 1"):
        run(tmp_path, base)


def test_a_gpu_that_is_too_small_is_said_with_numbers_and_the_next_thing_to_try(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def overflow(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("finetune_trainer.training.loop.summed_loss", overflow)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (2**29, 24 * 2**30))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda _: 23 * 2**30)

    with pytest.raises(
        CudaOutOfMemory, match=r"2 examples \(\d+ tokens\) .* 24.0 GiB .*halve microBatchSize"
    ):
        run(tmp_path, base)


def test_checkpoints_of_other_runs_are_left_alone(base: Path, tmp_path: Path):
    context = context_for(tmp_path, spec_for(base))
    context.store.write("runs/other/checkpoints/step-00000001/manifest.json", b"{}")

    checkpoints.remove_all(context.store, RUN_KEY)

    assert context.store.list("runs/other/") == ["runs/other/checkpoints/step-00000001/manifest.json"]
