"""The estimate against bytes that are counted on small models of every family, on the loop that really trains."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora.bnb import Linear4bit as PeftLinear4bit

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.training import row_attention
from finetune_trainer.training.adapter import add_adapter, load_quantized_base, trainable_parameters
from finetune_trainer.training.compiled_layers import compile_layers
from finetune_trainer.training.encoding import EncodedExample
from finetune_trainer.training.frozen_linear import FrozenLoraLinear
from finetune_trainer.training.loop import TrainingLoop
from finetune_trainer.training.losses import summed_loss
from finetune_trainer.training.memory_check import row_size
from finetune_trainer.training.memory_estimate import (
    BranchSize,
    Numbers,
    RowSize,
    estimate_memory,
    first_that_fits,
    kept_activations,
    optimizer_bytes,
    quantized_bytes,
    remedies,
    unshared_row,
    weight_bytes,
)
from finetune_trainer.training.model_shape import ModelShape, model_shape, read_model_shape
from finetune_trainer.training.optimizers import saved_state
from finetune_trainer.training.packing import PackedBatch, TrainingPlan, pack
from tests.finetune_trainer.training.measured_memory import (
    SHAPES,
    LiveBytes,
    kept_for_the_way_back,
    save_model,
    storage_bytes,
    tensors_of,
)

CPU = torch.device("cpu")
FLOAT32 = Numbers("cpu", 4)
ACCURACY = 0.1
FAMILIES = sorted(SHAPES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_model(tmp_path_factory.mktemp(name), name) for name in FAMILIES}


def spec(**fields: object) -> TrainingSpec:
    return TrainingSpec.model_validate(
        {
            "effectiveBatchSize": 8,
            "microBatchSize": 4,
            "maxSteps": 2,
            "sequenceLength": 192,
            "lora": {"rank": 8, "alpha": 16, "dropout": 0.0},
            **fields,
        }
    )


def examples(shared: int = 0) -> tuple[EncodedExample, ...]:
    """Eight examples of up to 180 tokens; `shared` of them are a beginning in common."""
    numbers = random.Random(3)  # noqa: S311 - tokens, not a secret
    start = tuple(numbers.randrange(3, 1000) for _ in range(shared))
    return tuple(
        EncodedExample(
            str(number),
            start + tuple(numbers.randrange(3, 1000) for _ in range(140 - shared + number)),
            tuple(numbers.randrange(3, 1000) for _ in range(30)),
        )
        for number in range(8)
    )


def adapted(folder: Path, training: TrainingSpec, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    return add_adapter(load_quantized_base(folder, training, CPU, dtype), training)


def batch_of(training: TrainingSpec, shared: int = 0) -> PackedBatch:
    return pack(examples(shared)[: training.micro_batch_size])


@pytest.mark.parametrize(
    ("family", "dtype", "quantization"),
    [
        *((family, torch.bfloat16, ("nf4", True)) for family in FAMILIES),
        ("llama", torch.float32, ("nf4", False)),
        ("gemma2", torch.float32, ("fp4", True)),
    ],
    ids=str,
)
def test_the_weights_of_the_quantised_model_are_known_to_the_byte(
    folders: dict[str, Path], family: str, dtype: torch.dtype, quantization: tuple[str, bool]
):
    kind, double = quantization
    training = spec(quantization={"type": kind, "doubleQuantization": double})
    shape = read_model_shape(folders[family] / "config.json")

    model = load_quantized_base(folders[family], training, CPU, dtype)

    assert storage_bytes(tensors_of(model)) == pytest.approx(
        weight_bytes(shape, training, Numbers("cpu", dtype.itemsize)), abs=16
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_adapter_gradients_and_optimizer_are_known_to_the_byte(folders: dict[str, Path], family: str):
    training = spec()
    shape = read_model_shape(folders[family] / "config.json")
    model = adapted(folders[family], training)
    loop = loop_of(model, training)

    next(loop.steps(lambda: False))

    estimate = estimate_memory(shape, training, FLOAT32, row_size(batch_of(training)))
    parameters = list(trainable_parameters(model).values())
    states = [t for state in loop.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
    assert storage_bytes(parameters) == estimate.adapter
    assert storage_bytes([p.grad for p in parameters if p.grad is not None]) == estimate.gradients
    assert storage_bytes(states) == estimate.optimizer


def loop_of(model: torch.nn.Module, training: TrainingSpec, shared: int = 0) -> TrainingLoop:
    plan = TrainingPlan.of(examples(shared), training)
    return TrainingLoop(model, plan, training, CPU, torch.float32)


def heaviest(shape: ModelShape, training: TrainingSpec, numbers: Numbers, loop: TrainingLoop) -> RowSize:
    sizes = [row_size(batch) for step in (0, 1) for batch in loop.plan.step_micro_batches(step)]
    return max(sizes, key=lambda size: estimate_memory(shape, training, numbers, size).activations)


@pytest.mark.parametrize(
    ("family", "checkpointing", "shared", "settings"),
    [
        *((family, False, 100, {}) for family in FAMILIES),
        *((family, True, 0, {}) for family in FAMILIES),
        ("llama", False, 0, {"microBatchSize": 1}),
        ("smollm2", False, 0, {"lora": {"rank": 32, "dropout": 0.1}}),
        ("qwen2", True, 100, {"lora": {"rank": 32, "dropout": 0.1}}),
    ],
    ids=str,
)
def test_the_peak_of_real_steps_is_estimated_within_a_tenth(
    folders: dict[str, Path], family: str, checkpointing: bool, shared: int, settings: dict[str, object]
):
    training = spec(gradientCheckpointing=checkpointing, **settings)
    shape = read_model_shape(folders[family] / "config.json")
    model = adapted(folders[family], training)
    loop = loop_of(model, training, shared)
    estimate = estimate_memory(shape, training, FLOAT32, heaviest(shape, training, FLOAT32, loop))

    with LiveBytes() as made:
        for _ in loop.steps(lambda: False):
            pass

    measured = storage_bytes(tensors_of(model)) + made.peak
    assert estimate.tensors == pytest.approx(measured, rel=ACCURACY)


@pytest.mark.parametrize(("dtype", "dropout"), [(torch.float32, 0.1), (torch.bfloat16, 0.0)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_autograd_keeps_is_estimated_within_a_tenth(
    folders: dict[str, Path], family: str, dtype: torch.dtype, dropout: float
):
    training = spec(lora={"rank": 8, "alpha": 16, "dropout": dropout})
    shape = read_model_shape(folders[family] / "config.json")
    model = adapted(folders[family], training, dtype)
    batch = batch_of(training, shared=60)

    measured = kept_for_the_way_back(model, lambda: summed_loss(model, batch, CPU))

    expected = kept_activations(shape, training, Numbers("cpu", dtype.itemsize), row_size(batch))
    assert expected == pytest.approx(measured, rel=ACCURACY)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("settings", [{}, {"lora": {"rank": 8, "dropout": 0.05}}], ids=["plain", "dropout"])
@pytest.mark.parametrize("family", ["gemma2", "llama"])
def test_what_compiled_layers_keep_on_a_gpu_is_estimated_within_a_tenth(
    folders: dict[str, Path], family: str, settings: dict[str, Any]
):
    """Layers and partitioner are a GPU's. The CPU's autocast takes the place of CUDA's, and attention is written out,
    which keeps scores that the GPU's kernel does not."""
    training = spec(**settings)
    shape = read_model_shape(folders[family] / "config.json")
    model = adapted(folders[family], training, torch.bfloat16)
    model.set_attn_implementation(row_attention.NAME)  # type: ignore[operator]
    for module in model.modules():
        if isinstance(module, PeftLinear4bit):
            module.__class__ = FrozenLoraLinear
    compile_layers(model, backend="aot_eager_decomp_partition")
    batch = batch_of(training)

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return summed_loss(model, batch, CPU)

    filled = row_attention.filled_length(len(batch))
    measured = kept_for_the_way_back(
        model, forward, counts=lambda tensor: tensor.shape[-2:] != (filled, filled)
    )

    size = row_size(batch)
    size = replace(size, branches=(*size.branches, BranchSize(filled - len(batch))))
    expected = kept_activations(shape, training, Numbers("cuda", 2), size)
    assert expected == pytest.approx(measured, rel=ACCURACY)


SMOLLM2 = model_shape(
    {
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
)
QUICKSTART = TrainingSpec.model_validate(
    {"sequenceLength": 384, "effectiveBatchSize": 8, "microBatchSize": 8}
)


def test_the_quickstart_fits_its_container_even_when_nothing_is_shared():
    estimate = estimate_memory(SMOLLM2, QUICKSTART, FLOAT32, unshared_row(8, 384, 64))

    assert estimate.total < 6 * 2**30


def test_a_4_bit_weight_takes_half_a_byte_and_its_share_of_the_scales():
    assert quantized_bytes(4096 * 4096, double_quantization=True) / 4096**2 * 8 == pytest.approx(
        4.127, abs=0.001
    )
    assert quantized_bytes(4096 * 4096, double_quantization=False) / 4096**2 * 8 == pytest.approx(
        4.5, abs=0.001
    )


def row_of(training: TrainingSpec) -> RowSize:
    return unshared_row(training.micro_batch_size, training.sequence_length, 64)


def room_for(training: TrainingSpec) -> int:
    return estimate_memory(SMOLLM2, training, FLOAT32, row_of(training)).tensors


@pytest.mark.parametrize(
    ("fits", "changed"),
    [
        ({}, {}),
        ({"microBatchSize": 4}, {"micro_batch_size": 4}),
        ({"microBatchSize": 1}, {"micro_batch_size": 1}),
        (
            {"microBatchSize": 1, "gradientCheckpointing": True},
            {"micro_batch_size": 1, "gradient_checkpointing": True},
        ),
        (
            {"microBatchSize": 1, "gradientCheckpointing": True, "sequenceLength": 192},
            {"micro_batch_size": 1, "gradient_checkpointing": True, "sequence_length": 192},
        ),
    ],
)
def test_what_to_try_is_a_smaller_micro_batch_then_checkpointing_then_shorter_sequences(
    fits: dict[str, object], changed: dict[str, object]
):
    room = room_for(TrainingSpec.model_validate({**QUICKSTART.to_wire(), **fits}))

    found = first_that_fits(remedies(QUICKSTART), SMOLLM2, FLOAT32, row_of, room)

    assert found == QUICKSTART.model_copy(update=changed)


def test_nothing_fits_where_the_weights_do_not():
    room = weight_bytes(SMOLLM2, QUICKSTART, FLOAT32)

    assert first_that_fits(remedies(QUICKSTART), SMOLLM2, FLOAT32, row_of, room) is None


def test_a_beginning_in_common_is_counted_once():
    alone = estimate_memory(SMOLLM2, QUICKSTART, FLOAT32, RowSize((BranchSize(300),) * 2, 20))
    shared = estimate_memory(
        SMOLLM2, QUICKSTART, FLOAT32, RowSize((BranchSize(300), BranchSize(50, old=250)), 20)
    )

    assert shared.activations < alone.activations
    assert shared.weights == alone.weights


def test_moments_of_8_bits_are_known_to_the_byte(folders: dict[str, Path]):
    training = spec(optimizer="adamw-8bit", lora={"rank": 32, "alpha": 16})
    shape = read_model_shape(folders["llama"] / "config.json")
    loop = loop_of(adapted(folders["llama"], training), training)

    next(loop.steps(lambda: False))

    states = [
        saved
        for p in loop.parameters.values()
        for name, saved in saved_state(loop.optimizer, p).items()
        if name != "step"
    ]
    assert storage_bytes(states) == optimizer_bytes(shape, training)


def test_logits_take_no_more_memory_for_more_answers():
    few, many = (
        estimate_memory(SMOLLM2, QUICKSTART, FLOAT32, RowSize((BranchSize(4000),), labels)).activations
        for labels in (1400, 2800)
    )

    assert many - few < 2 * 1400 * SMOLLM2.hidden * 4


def test_of_a_base_that_is_dealt_out_a_process_holds_its_piece_and_two_layers_whole():
    packed_layer = sum(linear.inputs * linear.outputs // 2 for linear in SMOLLM2.linears)

    whole, dealt = (weight_bytes(SMOLLM2, QUICKSTART, FLOAT32, pieces) for pieces in (1, 4))

    assert whole - dealt == SMOLLM2.layers * packed_layer * 3 // 4 - 2 * packed_layer
