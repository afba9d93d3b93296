"""Training that cannot fit is refused before the model is loaded, with numbers and with what would fit."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.errors import CudaOutOfMemory, HostOutOfMemory
from finetune_trainer.training import memory_check
from finetune_trainer.training.encoding import EncodedExample
from finetune_trainer.training.memory_check import (
    FittedTraining,
    container_memory_limit,
    fit_memory,
    heaviest_row,
)
from finetune_trainer.training.memory_estimate import (
    HOST_PROCESS_BYTES,
    MemoryEstimate,
    Numbers,
    estimate_memory,
)
from finetune_trainer.training.model_shape import read_model_shape
from finetune_trainer.training.packing import TrainingPlan
from finetune_trainer.training.ranks import Ranks
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import (
    context_for,
    example,
    publish_dataset,
    save_tiny_model,
    spec_for,
)

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)
CONFIG = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
TRAINING = TrainingSpec.model_validate({"sequenceLength": 384, "effectiveBatchSize": 8, "microBatchSize": 8})
LIMIT = "memory.max"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def plan_of(training: TrainingSpec, tokens: int = 300) -> TrainingPlan:
    rows = tuple(
        EncodedExample(str(number), tuple(range(number * 1000, number * 1000 + tokens - 40)), (7,) * 40)
        for number in range(24)
    )
    return TrainingPlan.of(rows, training)


def fit_on_cpu(folder: Path, limit: str, training: TrainingSpec = TRAINING) -> FittedTraining:
    (folder / LIMIT).write_text(f"{limit}\n")
    return fit_memory(folder, training, plan_of(training), CPU, torch.float32, [folder / LIMIT])


def check_on_cpu(folder: Path, limit: str, training: TrainingSpec = TRAINING) -> MemoryEstimate | None:
    return fit_on_cpu(folder, limit, training).estimate


def test_the_quickstart_is_never_refused_in_its_6_gib(folder: Path):
    """8 examples of 300 tokens with nothing in common are more than its longest row."""
    estimate = check_on_cpu(folder, str(6 * 2**30))

    assert estimate is not None
    assert 3 * 2**30 < estimate.total < 6 * 2**30


def test_what_is_too_much_at_a_time_is_trained_with_fewer_examples_and_the_same_batch(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    fitted = fit_on_cpu(folder, str(3 * 2**30))

    assert fitted.training == TRAINING.model_copy(update={"micro_batch_size": 4})
    assert fitted.estimate is not None
    assert fitted.estimate.total <= 3 * 2**30
    assert "the same effective batch is trained with spec.training.microBatchSize: 4" in caplog.text


def test_checkpointing_is_taken_where_no_micro_batch_fits_without_it(folder: Path):
    fitted = fit_on_cpu(folder, str(HOST_PROCESS_BYTES + 500 * 2**20))

    assert fitted.training.gradient_checkpointing
    assert fitted.training.micro_batch_size < 8
    assert fitted.training.effective_batch_size == 8


def test_examples_are_never_left_out_to_save_memory_but_that_is_advised(folder: Path):
    training = TRAINING.model_copy(
        update={"micro_batch_size": 1, "gradient_checkpointing": True, "sequence_length": 2048}
    )
    short, long = plan_of(training, tokens=150), plan_of(training, tokens=2000)
    both = replace(short, rows=(*short.rows, *long.rows))
    (folder / LIMIT).write_text("max")
    least, most = (
        fit_memory(folder, training, plan, CPU, torch.float32, [folder / LIMIT]).estimate
        for plan in (short, both)
    )
    assert least is not None
    assert most is not None
    (folder / LIMIT).write_text(str((least.total + most.total) // 2))

    with pytest.raises(
        HostOutOfMemory, match=r"microBatchSize: 1 examples .* set spec.training.sequenceLength: 1024"
    ):
        fit_memory(folder, training, both, CPU, torch.float32, [folder / LIMIT])


def test_nothing_is_advised_but_more_memory_where_nothing_fits(folder: Path):
    with pytest.raises(HostOutOfMemory, match=r"memory limit; raise spec.resources.train.memory to 4Gi"):
        check_on_cpu(folder, str(HOST_PROCESS_BYTES + 2**20))


def test_an_estimate_that_is_over_within_its_own_accuracy_is_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    estimate = check_on_cpu(folder, "max")
    assert estimate is not None

    check_on_cpu(folder, str(estimate.process + int(estimate.tensors / 1.05)))

    assert "within its own accuracy" in caplog.text


def test_a_container_without_a_limit_refuses_nothing_and_the_estimate_is_one_log_line(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)

    assert check_on_cpu(folder, "max") is not None

    [record] = caplog.records
    assert "memory estimated: device=cpu micro_batch=8 row_tokens=2400 weights_gib=0.1" in record.getMessage()
    assert record.getMessage().endswith("room_gib=unknown")


def test_a_model_whose_sizes_are_not_known_is_trained_all_the_same(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    (folder / "config.json").write_text(json.dumps({"model_type": "mamba"}))

    assert check_on_cpu(folder, "1000") is None

    assert (
        "memory is not estimated: config.json: the sizes of model_type 'mamba' are not known" in caplog.text
    )


def test_a_gpu_with_less_room_takes_fewer_examples_and_one_that_is_too_small_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    room = {"bytes": 2**30}
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (room["bytes"], 2 * 2**30))

    fitted = fit_memory(folder, TRAINING, plan_of(TRAINING), GPU, torch.bfloat16)

    assert fitted.training.micro_batch_size < 8
    room["bytes"] = 100 * 2**20
    with pytest.raises(
        CudaOutOfMemory,
        match=r"8 examples \(\d+ tokens\) need about \d\.\d GiB \(weights 0.1, .*0.1 GiB are free on the GPU; ",
    ):
        fit_memory(folder, TRAINING, plan_of(TRAINING), GPU, torch.bfloat16)


def test_a_base_that_no_single_gpu_has_room_for_is_dealt_out_by_the_smallest_room_of_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 300}))
    sparing = TRAINING.model_copy(update={"micro_batch_size": 1, "gradient_checkpointing": True})
    plan, numbers = plan_of(sparing), Numbers("cuda", 2)
    shape = read_model_shape(folder / "config.json")
    row = heaviest_row(plan, sparing, shape, numbers)
    assert row is not None
    room = estimate_memory(shape, sparing, numbers, row, pieces=4).tensors
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (80 * 2**30, 80 * 2**30))
    asked: list[int] = []

    def smallest(_: Ranks, own: int, __: torch.device) -> int:
        asked.append(own)
        return room

    monkeypatch.setattr(Ranks, "smallest", smallest)

    fitted = fit_memory(folder, sparing, plan, GPU, torch.bfloat16, ranks=Ranks(2, 4))

    assert asked == [80 * 2**30]
    assert (fitted.training, fitted.pieces) == (sparing, 4)
    assert "is trained with the base model dealt out over 4 processes" in caplog.text
    with pytest.raises(CudaOutOfMemory, match="take a larger GPU, or more of them"):
        fit_memory(folder, sparing, plan, GPU, torch.bfloat16, ranks=Ranks(0, 2))


def test_a_gpu_with_room_takes_what_the_spec_says(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (23 * 2**30, 24 * 2**30))

    assert fit_memory(folder, TRAINING, plan_of(TRAINING), GPU, torch.bfloat16).training is TRAINING


def test_the_heaviest_micro_batch_counts_and_a_long_plan_is_looked_at_in_places(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    looked_at: list[int] = []
    original = TrainingPlan.step_micro_batches

    def watched(plan: TrainingPlan, step: int) -> Sequence[object]:
        looked_at.append(step)
        return original(plan, step)

    monkeypatch.setattr(TrainingPlan, "step_micro_batches", watched)
    training = TRAINING.model_copy(update={"epochs": 100.0})

    check_on_cpu(folder, "max", training)

    assert len(looked_at) == memory_check.STEPS_LOOKED_AT
    assert looked_at[0] == 0
    assert looked_at[-1] > 0.9 * plan_of(training).total_steps


@pytest.mark.parametrize(
    ("v2", "v1", "limit"),
    [
        ("max", None, None),
        ("6442450944", None, 6 * 2**30),
        (None, "6442450944", 6 * 2**30),
        (None, "9223372036854771712", None),
        (None, None, None),
    ],
)
def test_the_containers_limit_is_read_from_either_generation_of_cgroups(
    tmp_path: Path, v2: str | None, v1: str | None, limit: int | None
):
    files = [tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"]
    for file, text in zip(files, (v2, v1), strict=True):
        if text is not None:
            file.write_text(text + "\n")

    assert container_memory_limit(files) == limit


def test_the_train_stage_refuses_before_it_loads_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base = save_tiny_model(tmp_path / "base")
    context = context_for(tmp_path, spec_for(base))
    publish_dataset(context, [example(number) for number in range(10)])
    loaded: list[object] = []
    monkeypatch.setattr(
        "finetune_trainer.training.preparation.load_quantized_base", lambda *given: loaded.append(given)
    )
    monkeypatch.setattr("finetune_trainer.training.preparation.choose_device", lambda _: torch.device("cpu"))
    monkeypatch.setattr(memory_check, "container_memory_limit", lambda _: HOST_PROCESS_BYTES + 2**20)

    with pytest.raises(HostOutOfMemory, match=r"2 examples \(\d+ tokens\) need about"):
        train(context)

    assert loaded == []
