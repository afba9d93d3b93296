from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch._dynamo.backends.debugging import aot_eager

from finetune_contract.run_spec import LoraSpec, TrainingSpec
from finetune_trainer.training import attention, compiled_layers, frozen_linear, row_attention
from finetune_trainer.training.adapter import add_adapter, load_quantized_base
from finetune_trainer.training.compiled_layers import compile_if_it_proves, decoder_layers
from finetune_trainer.training.losses import summed_loss
from finetune_trainer.training.packing import pack
from tests.finetune_trainer.training.test_equality import model_of, rows

CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_layers_stay_compiled_when_the_first_row_has_the_loss_that_it_should_have():
    model, batch = model_of("llama", row_attention.NAME, "cpu"), pack(rows())

    assert compile_if_it_proves(model, lambda: summed_loss(model, batch, CPU), backend="aot_eager")

    assert model.config._attn_implementation == row_attention.NAME
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_machine_that_cannot_compile_trains_as_before_and_says_why(caplog: pytest.LogCaptureFixture):
    model, batch = model_of("llama", row_attention.NAME, "cpu"), pack(rows())
    expected = summed_loss(model_of("llama", attention.NAME, "cpu"), batch, CPU).item()

    def broken(*_: Any) -> Any:
        raise RuntimeError("no C compiler")

    assert not compile_if_it_proves(model, lambda: summed_loss(model, batch, CPU), backend=broken)

    assert "no C compiler" in caplog.text
    assert model.config._attn_implementation == attention.NAME
    assert summed_loss(model, batch, CPU).item() == expected


def as_on_a_gpu(folder: Path, dropout: float = 0.0, **training: Any) -> torch.nn.Module:
    """A 4-bit model with the layers and the attention that it has there."""
    spec = TrainingSpec(max_steps=1, lora=LoraSpec(rank=4, alpha=8, dropout=dropout), **training)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoraConfig, "__post_init__", with_gpu_layers(LoraConfig.__post_init__))
        model = add_adapter(load_quantized_base(folder, spec, CPU, torch.float32), spec)
    for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
        torch.manual_seed(number)
        torch.nn.init.normal_(parameter, std=0.1)
    model.set_attn_implementation(row_attention.NAME)  # type: ignore[operator]
    return model


def with_gpu_layers(made: Callable[[LoraConfig], None]) -> Callable[[LoraConfig], None]:
    def make(config: LoraConfig) -> None:
        made(config)
        config._register_custom_module(frozen_linear.LAYERS)

    return make


def training_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Loss and gradients of a row."""
    torch.manual_seed(7)
    loss = summed_loss(model, pack(rows()), CPU)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_layers_that_recompute_their_activations_train_like_those_that_keep_them(
    recompute: bool, dropout: float, base: Path
):
    """Without dropout, layers hand each other what they make of the same input."""
    expected = training_of(as_on_a_gpu(base, dropout))
    model = as_on_a_gpu(base, dropout, gradient_checkpointing=recompute)
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    assert compile_if_it_proves(model, lambda: summed_loss(model, pack(rows()), CPU), backend=counting)
    whole_layers = 1 if recompute else 2  # of the first, what it reads needs no gradient
    assert len(graphs) == whole_layers

    found = training_of(model)

    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_layers_that_recompute_go_on_doing_so_on_a_machine_that_cannot_compile(base: Path):
    model = as_on_a_gpu(base, gradient_checkpointing=True)

    def broken(*_: Any) -> Any:
        raise RuntimeError("no C compiler")

    assert not compile_if_it_proves(model, lambda: summed_loss(model, pack(rows()), CPU), backend=broken)

    assert all(layer.gradient_checkpointing for layer in decoder_layers(model))
    assert training_of(model).keys() == training_of(as_on_a_gpu(base)).keys()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_model_is_compiled_also_after_another_one_that_left_no_room_for_graphs(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(compiled_layers, "LARGEST_NUMBER_OF_GRAPHS", 1)
    compiled: list[int] = []

    def counting(graph: Any, _: Any) -> Any:
        compiled.append(len(compiled))
        return graph

    batch = pack(rows())
    for _ in range(2):
        model = model_of("llama", row_attention.NAME, "cpu")
        assert compile_if_it_proves(model, partial(summed_loss, model, batch, CPU), backend=counting)

    assert compiled == [0, 1]


def test_a_wrong_loss_is_not_trusted(caplog: pytest.LogCaptureFixture):
    model = model_of("llama", row_attention.NAME, "cpu")
    told = iter([torch.tensor(2.0), torch.tensor(2.3, requires_grad=True)])

    assert not compile_if_it_proves(model, lambda: next(told), backend="eager")

    assert "its loss differs" in caplog.text
