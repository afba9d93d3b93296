"""A base that is dealt out over two processes trains what a whole one trains, and takes half of its memory."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._dynamo.backends.registry import lookup_backend

from finetune_contract.artifact_layout import adapter_folder
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.stores.local_folder import LocalFolder
from finetune_trainer.training import row_attention
from finetune_trainer.training.adapter import linear_layer_names, load_quantized_base
from finetune_trainer.training.compiled_layers import compile_layers
from finetune_trainer.training.dealt_base import deal_out, piece_of
from finetune_trainer.training.frozen_linear import LAYERS as VISIBLE_LAYERS
from finetune_trainer.training.losses import summed_loss
from finetune_trainer.training.packing import pack
from finetune_trainer.training.ranks import Ranks
from tests.finetune_trainer.training.test_equality import rows
from tests.finetune_trainer.training.test_ranks import run_processes
from tests.finetune_trainer.training.tiny_model import RUN_KEY, save_tiny_model, spec_for
from tests.finetune_trainer.training.tiny_run import adapter_weights, losses

LAYERS = 6
DEALT = "dealt_process"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def deep_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("deep"), layers=LAYERS)


@pytest.fixture(scope="module")
def base_of_four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("four"), layers=4)


def evaluation_loss(folder: Path) -> float:
    manifest = read_manifest(LocalFolder(folder / "store"), adapter_folder(RUN_KEY))
    assert manifest is not None
    return float(str(manifest.facts["evaluationLoss"]))


def settings_with(**training: object) -> str:
    """Three micro-batches a step: one of two processes follows the other's second one."""
    return json.dumps(
        {
            "maxSteps": 4,
            "effectiveBatchSize": 3,
            "microBatchSize": 1,
            "evaluateEverySteps": 2,
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
            **training,
        }
    )


@pytest.fixture(scope="module")
def whole_run(deep_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    run_processes(1, folder, deep_base, settings_with(), module=DEALT)
    return folder


@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_processes_with_half_a_base_each_train_the_weights_of_one_with_a_whole_base(
    checkpointing: bool, deep_base: Path, whole_run: Path, tmp_path: Path
):
    settings = settings_with(gradientCheckpointing=checkpointing)

    seen = run_processes(2, tmp_path, deep_base, settings, module=DEALT)

    assert losses(tmp_path) == pytest.approx(losses(whole_run), rel=1e-5)
    assert evaluation_loss(tmp_path) == pytest.approx(evaluation_loss(whole_run), rel=1e-3)
    weights, expected = adapter_weights(tmp_path), adapter_weights(whole_run)
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)
    for process in seen:
        assert process["held"] == process["whole"] // 2
        assert process["mostHeld"] == process["whole"] // 2 + 2 * process["whole"] // LAYERS


@pytest.fixture
def group() -> Iterator[None]:
    """This process alone, with the means to gather."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def adapted(base: Path) -> torch.nn.Module:
    """As on a GPU: with the layers and the attention that a compiler sees through."""
    model = load_quantized_base(base, spec_for(base).training, CPU, torch.float32)
    model.set_attn_implementation(row_attention.NAME)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=linear_layer_names(model), init_lora_weights=False)
    config._register_custom_module(VISIBLE_LAYERS)
    torch.manual_seed(3)
    with warnings.catch_warnings():  # peft still asks for a property that transformers renames
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, config)  # type: ignore[no-any-return]


def loss_and_gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    loss = summed_loss(model, pack(rows()), CPU)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad(set_to_none=True)
    return [loss.detach(), *gradients]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("compiled", [False, True])
def test_layers_whose_bytes_come_and_go_have_the_gradients_of_layers_that_keep_them(
    compiled: bool, base_of_four: Path, group: None
):
    """Compiled without machine code, by torch's own partitioner: once for the first layer, whose input learns nothing,
    and once for all others. Learned twice, for what is kept of a row must not be old."""
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return lookup_backend("aot_eager_decomp_partition")(graph, inputs)

    expected = loss_and_gradients(adapted(base_of_four))
    model = adapted(base_of_four)

    window = deal_out(model, Ranks())
    if compiled:
        compile_layers(model, backend=counting)
    found = [loss_and_gradients(model) for _ in range(2)]

    assert len(window) == 4
    assert len(graphs) == (2 if compiled else 0)
    for values in found:
        assert len(values) == len(expected) == 1 + 2 * 7 * 4
        for value, other in zip(values, expected, strict=True):
            torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_pieces_are_equally_long_and_make_the_whole_again(count: int):
    packed = torch.arange(10, dtype=torch.uint8)[:, None]

    pieces = [piece_of(packed, number, count) for number in range(count)]

    assert len({len(piece) for piece in pieces}) == 1
    assert torch.equal(torch.cat(pieces)[:10], packed)
    assert not torch.cat(pieces)[10:].any()
