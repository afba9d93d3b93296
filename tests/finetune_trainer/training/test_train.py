from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_contract.artifact_layout import (
    TRAINING_REPORT_FILE,
    adapter_folder,
)
from finetune_contract.stage_protocol import ExitCode
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.errors import BaseModelRejected, CudaOutOfMemory, DataRejected, Diverged
from finetune_trainer.training.adapter_files import TRAINING_LOG
from finetune_trainer.training.packing import PackedBatch
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import (
    RUN_KEY,
    SilentProgress,
    context_for,
    save_tiny_model,
    spec_for,
)
from tests.finetune_trainer.training.tiny_run import (
    adapter_weights,
    losses,
    run,
)


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


def test_a_base_that_no_adapter_could_be_merged_into_is_refused_before_the_first_step(tmp_path: Path):
    weights_file = save_tiny_model(tmp_path / "base") / "model.safetensors"
    narrow = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(weights_file).items()}
    save_file(narrow, weights_file, {"format": "pt"})

    with pytest.raises(BaseModelRejected, match=r"is held as F8_E4M3.* take the model's 16-bit form"):
        run(tmp_path, tmp_path / "base")


def test_a_loss_that_is_no_number_ends_the_run(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "finetune_trainer.training.loop.summed_loss",
        lambda model, *_, **__: sum(p.sum() for p in model.parameters() if p.requires_grad) * float("nan"),
    )

    with pytest.raises(Diverged, match=r"spec.training.learningRate: the loss is nan at step 1"):
        run(tmp_path, base)


def test_a_gpu_that_is_too_small_is_said_with_numbers_and_the_next_thing_to_try(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def overflow(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("finetune_trainer.training.loop.summed_loss", overflow)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (2**29, 24 * 2**30))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda _: 23 * 2**30)

    with pytest.raises(
        CudaOutOfMemory, match=r"2 examples \(\d+ tokens\) .* 24.0 GiB .*halve microBatchSize"
    ):
        run(tmp_path, base)


def test_a_loss_that_runs_away_ends_the_run_with_numbers_and_the_remedy(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The weights are left alone, so that only the losses that are told run away. Compiling would ask once more."""
    monkeypatch.setattr("finetune_trainer.training.preparation.choose_device", lambda _: torch.device("cpu"))
    told = iter([2.0] * 30 + [9.0] * 100)

    def loss_of(
        model: torch.nn.Module,
        batch: PackedBatch,
        device: torch.device,
        divisor: int,
        *_: object,
        **__: object,
    ) -> torch.Tensor:
        nothing = sum((p.sum() * 0.0 for p in model.parameters() if p.requires_grad), torch.zeros(()))
        return nothing + next(told) * len(batch.labels) / divisor

    monkeypatch.setattr("finetune_trainer.training.loop.summed_loss", loss_of)

    with pytest.raises(Diverged) as caught:
        run(tmp_path, base, maxSteps=100, effectiveBatchSize=2)

    assert str(caught.value) == (
        "spec.training.learningRate: the loss diverges: its median over steps 22 to 41 is 9, and the lowest mean "
        "over 20 steps was 2 (up to step 10); lower the learning rate (0.01), or raise warmupRatio (0.05)"
    )
    assert caught.value.exit_code is ExitCode.DIVERGED


def test_a_gradient_that_is_no_number_ends_the_run_before_it_reaches_the_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "finetune_trainer.training.loop.summed_loss",
        lambda model, *_, **__: sum((p.sum() * 0.0).sqrt() for p in model.parameters() if p.requires_grad),
    )

    with pytest.raises(
        Diverged, match=r"the gradient's norm is nan at step 1 \(loss 0, .*lower the learning rate"
    ):
        run(tmp_path, base)
