"""The layer that a GPU trains is peft's over bitsandbytes': the same weight to the bit, the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from peft import LoraConfig, get_peft_model

from finetune_trainer.training import frozen_linear
from finetune_trainer.training.compiled_layers import set_up_compiler
from finetune_trainer.training.frozen_linear import FrozenLoraLinear, frozen_product, share_inputs

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
INPUTS, OUTPUTS = 256, 192


class Model(torch.nn.Module):
    def __init__(self, nested: bool, bias: bool, kind: str, device: str) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = Linear4bit(
            INPUTS,
            OUTPUTS,
            bias=bias,
            compute_dtype=torch.float32,
            compress_statistics=nested,
            quant_type=kind,
        )
        weight = torch.randn(OUTPUTS, INPUTS)
        self.layer.weight = Params4bit(
            weight, requires_grad=False, quant_type=kind, compress_statistics=nested
        )
        self.to(device)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(inputs)
        return found


def adapted(nested: bool, bias: bool, device: str, layers: Any = None) -> torch.nn.Module:
    config = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["layer"], init_lora_weights=False
    )
    if layers is not None:
        config._register_custom_module(layers)
    model = Model(nested, bias, "nf4", device)
    torch.manual_seed(3)
    return get_peft_model(model, config).to(device)  # type: ignore[arg-type, no-any-return]


def trained(model: torch.nn.Module, device: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(4)
    inputs = torch.randn(1, 7, INPUTS, device=device, requires_grad=True)
    outputs = model(inputs)
    outputs.pow(2).sum().backward()
    gradients = {
        name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    assert inputs.grad is not None
    return {"outputs": outputs.detach(), "inputs": inputs.grad, **gradients}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_it_trains_like_pefts_layer(nested: bool, bias: bool, compiled: bool, device: str):
    """On a CPU what the compiler makes of it is run by torch itself, without making machine code."""
    expected = trained(adapted(nested, bias, device), device)
    model = adapted(nested, bias, device, frozen_linear.LAYERS)
    assert isinstance(model.base_model.model.layer, FrozenLoraLinear)  # type: ignore[union-attr]
    if compiled:
        backend = "inductor" if device == "cuda" else "aot_eager"
        model.base_model.model.layer.compile(fullgraph=True, dynamic=True, backend=backend)  # type: ignore[union-attr, operator]

    found = trained(model, device)

    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-2 if device == "cuda" else 1e-5, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_weight_has_the_bits_of_bitsandbytes(
    nested: bool, kind: str, dtype: torch.dtype, device: str
):
    weight = Model(nested, False, kind, device).layer.weight
    backend = "inductor" if device == "cuda" else "aot_eager"
    product = torch.compile(frozen_product, fullgraph=True, backend=backend)

    columns = product(torch.eye(INPUTS, device=device, dtype=dtype), weight, weight.quant_state)

    expected = dequantize_4bit(weight, weight.quant_state).to(dtype)
    if device == "cuda" and nested and dtype is torch.float32:  # a scale's product and sum are rounded once
        torch.testing.assert_close(columns.t(), expected, rtol=2e-7, atol=0)
    else:
        assert torch.equal(columns.t(), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("shared", [False, True])
def test_the_unpacked_weight_is_not_kept_for_the_way_back(shared: bool):
    """By the partitioner that decides it on a GPU too."""
    set_up_compiler()
    if shared:
        model = readers("cpu", frozen_linear.LAYERS)
        share_inputs(model, lambda: model(some_inputs("cpu")))
    else:
        model = adapted(True, False, "cpu", frozen_linear.LAYERS)
    model.base_model.model.compile(dynamic=True, backend="aot_eager_decomp_partition")  # type: ignore[union-attr, operator]
    kept: list[torch.Tensor] = []

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        model(torch.randn(1, 7, INPUTS, requires_grad=True)).sum().backward()

    assert kept
    assert max(tensor.numel() for tensor in kept if tensor.is_floating_point()) < INPUTS * OUTPUTS


class FourReaders(torch.nn.Module):
    """Three that read the same tensor, as queries, keys and values do, and one that reads what they make."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.gate, self.up, self.side, self.down = (Model(True, False, "nf4", device).layer for _ in range(4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        mixed = (self.gate(inputs) / INPUTS).tanh() * self.up(inputs) + self.side(inputs)
        found: torch.Tensor = self.down(torch.nn.functional.pad(mixed, (0, INPUTS - OUTPUTS)))
        return found


def readers(device: str, layers: Any = None, dropout: float = 0.0) -> torch.nn.Module:
    config = LoraConfig(
        r=3,  # three of them are no multiple of what a GPU wants
        lora_alpha=8,
        lora_dropout=dropout,
        target_modules=["gate", "up", "side", "down"],
        init_lora_weights=False,
    )
    if layers is not None:
        config._register_custom_module(layers)
    torch.manual_seed(3)
    return get_peft_model(FourReaders(device), config).to(device)  # type: ignore[arg-type, no-any-return]


def some_inputs(device: str) -> torch.Tensor:
    torch.manual_seed(4)
    return torch.randn(1, 7, INPUTS, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("compiled", [False, True])
def test_layers_that_share_the_first_product_train_as_if_each_had_its_own(compiled: bool, device: str):
    expected = trained(readers(device), device)
    model = readers(device, frozen_linear.LAYERS)

    assert share_inputs(model, lambda: model(some_inputs(device))) == 2

    inner = model.base_model.model  # type: ignore[union-attr]
    assert inner.gate.followers == (inner.up, inner.side)  # type: ignore[union-attr]
    assert inner.up.followers == inner.side.followers == inner.down.followers == ()  # type: ignore[union-attr]
    if compiled:
        inner.compile(fullgraph=True, dynamic=True, backend="inductor" if device == "cuda" else "aot_eager")  # type: ignore[operator]
    for _ in range(2):  # the second time with what the first one left behind
        model.zero_grad(set_to_none=True)
        found = trained(model, device)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            rounding = 1e-6 * float(value.abs().max())  # one product sums in another order than two
            rtol = 1e-2 if device == "cuda" else 1e-4
            torch.testing.assert_close(found[name], value, rtol=rtol, atol=max(1e-3, rounding))


def test_a_layer_that_is_given_another_input_than_the_one_before_it_makes_its_own_product():
    model = readers("cpu", frozen_linear.LAYERS)
    share_inputs(model, lambda: model(some_inputs("cpu")))
    inner: Any = model.base_model.model  # type: ignore[union-attr]
    first, other = some_inputs("cpu"), some_inputs("cpu") + 1
    expected = readers("cpu").base_model.model.up(other)  # type: ignore[union-attr, operator]

    inner.gate(first)

    torch.testing.assert_close(inner.up(other), expected, rtol=1e-4, atol=1e-3)


def test_layers_whose_inputs_are_dropped_at_random_share_nothing():
    """Each drops others."""
    model = readers("cpu", frozen_linear.LAYERS, dropout=0.1)

    assert share_inputs(model, lambda: model(some_inputs("cpu"))) == 0
