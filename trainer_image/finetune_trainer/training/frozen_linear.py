"""A linear layer of the 4-bit base with its LoRA, written so that a compiler sees all of it. For a GPU.

The same numbers as peft's layer over bitsandbytes' layer. Those hide unpacking and product behind operations that the
compiler cannot look into, and whose way from Python to the kernel takes longer than the kernel of a small layer. Here
the compiler makes one kernel of unpacking scales and weight. The weight is unpacked anew on the way back, never kept.

Layers that read the same input, as queries, keys and values do, share the adapter's first product: the input is read
once for all of them, and so is its gradient on the way back. That product then stands beside the input, and the
adapter's second matrix beside the weight, so that one product of both makes base and adapter: (T, outputs) is written
once, where two products and their sum would write it three times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn.modules import Linear4bit as PackedLinear
from peft.tuners.lora.bnb import Linear4bit as PeftLinear4bit
from torch import Tensor
from torch.nn.functional import pad

ALIGNED_TO = 8
"""16-bit numbers that a row must hold a multiple of, or a GPU's fast products cannot read it (16 bytes)."""


class _Shared(NamedTuple):
    """What layers that read the same input have in common."""

    x: Tensor
    """The input that they were called with."""
    narrow: Tensor
    """This layer's first product, scaled, (..., rank)."""
    wide: Tensor
    """(..., inputs + all ranks): the input, the first products of all, and zeros to fill it up. Without gradient."""
    place: int
    """Where this layer's stands among them."""


class FrozenLoraLinear(PeftLinear4bit):
    """peft's layer with another forward pass; parameters, names and saved files are peft's."""

    followers: tuple[FrozenLoraLinear, ...] = ()
    """The layers called right after this one with the same input."""
    _handed: _Shared | None = None
    """What the layer in front made for this one too."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._handed = (
            None  # of its own from the start, or its first call would be compiled apart from the later ones
        )

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Base and adapter.

        Args:
            x: (..., inputs)
        Returns:
            (..., outputs)
        """
        (name,) = self.active_adapters
        base: Any = self.base_layer
        inputs = x.to(base.compute_dtype)
        up: Tensor = self.lora_B[name].get_parameter("weight").to(inputs.dtype)
        handed, self._handed = self._handed, None
        if handed is None or handed.x is not x:
            handed = self._share(x, inputs) if self.followers else None
        if handed is not None:
            mixed = joined_product(inputs, handed.narrow, up, handed, base.weight, base.weight.quant_state)
        else:
            narrow = self.lora_dropout[name](inputs) @ self._down(inputs.dtype).t() * self.scaling[name]
            mixed = frozen_product(inputs, base.weight, base.weight.quant_state) + narrow @ up.t()
        if base.bias is not None:
            mixed = mixed + base.bias.to(mixed.dtype)
        return mixed.to(x.dtype)

    def _share(self, x: Tensor, inputs: Tensor) -> _Shared:
        """The first products of this layer and its followers, which are handed theirs."""
        layers = (self, *self.followers)
        down = [layer._down(inputs.dtype) for layer in layers]
        widths = [len(matrix) for matrix in down]
        products = torch.split(inputs @ torch.cat(down).t(), widths, dim=-1)
        narrow = [
            product * layer.scaling[layer.active_adapters[0]]
            for product, layer in zip(products, layers, strict=True)
        ]
        wide = pad(torch.cat([inputs, *narrow], dim=-1).detach(), (0, -sum(widths) % ALIGNED_TO))
        shared = [_Shared(x, part, wide, sum(widths[:place])) for place, part in enumerate(narrow)]
        for layer, own in zip(self.followers, shared[1:], strict=True):
            layer._handed = own
        return shared[0]

    def _down(self, dtype: torch.dtype) -> Tensor:
        (name,) = self.active_adapters
        down: Tensor = self.lora_A[name].get_parameter("weight").to(dtype)
        return down

    @property
    def drops(self) -> bool:
        """Some of its inputs are left out at random, in each layer others."""
        return any(isinstance(part, torch.nn.Dropout) for part in self.lora_dropout.values())


def share_inputs(model: torch.nn.Module, run: Callable[[], object]) -> int:
    """Find layers that read the same tensor one after the other, and let them share the adapter's first product.

    Args:
        run: takes a row through the model.
    Returns:
        How many layers follow another one.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, FrozenLoraLinear) and not layer.drops]
    rows: list[list[FrozenLoraLinear]] = []
    last: list[Tensor] = []

    def see(layer: FrozenLoraLinear, _: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if last and last[0] is given[0] and layer not in rows[-1]:
            rows[-1].append(layer)
        else:
            rows.append([layer])
        last[:] = given[:1]

    hooks = [layer.register_forward_pre_hook(partial(see, layer)) for layer in layers]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    for layer in layers:
        layer.followers = ()
    for leader, *others in rows:
        leader.followers = tuple(others)
    return sum(len(layer.followers) for layer in layers)


LAYERS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {PackedLinear: FrozenLoraLinear}
"""What peft is to put around which layer."""


@dataclass(frozen=True)
class Packing:
    """How a weight lies in its 4 bits (NF4 and double quantisation: arXiv:2305.14314, section 3)."""

    kind: str
    """nf4 or fp4."""
    shape: tuple[int, ...]
    """(outputs, inputs)"""
    block: int
    """Weights that share a scale."""
    scale_block: int
    """Scales that share a scale of their own; 0 when scales are not packed."""


def frozen_product(inputs: Tensor, packed: Tensor, state: QuantState) -> Tensor:
    """`inputs` times the packed weight, transposed. The gradient goes to the inputs alone."""
    product: Tensor = _FrozenProduct.apply(inputs, _packing(state), packed, *_tables(state))
    return product


def joined_product(
    inputs: Tensor, narrow: Tensor, up: Tensor, shared: _Shared, packed: Tensor, state: QuantState
) -> Tensor:
    """The same, and with it `narrow` times `up`, transposed. The gradient goes to inputs, `narrow` and `up`.

    Args:
        narrow: (..., rank)
        up: (outputs, rank)
        shared: whose `wide` holds both inputs.
    """
    product: Tensor = _JoinedProduct.apply(
        inputs, narrow, up, shared.wide, shared.place, _packing(state), packed, *_tables(state)
    )
    return product


def _packing(state: QuantState) -> Packing:
    scale_block = state.state2.blocksize if state.nested else 0
    return Packing(state.quant_type, tuple(state.shape), state.blocksize, scale_block)


def _tables(state: QuantState) -> tuple[Tensor, ...]:
    """The table of values, and what the scales are unpacked from."""
    if not state.nested:
        return state.code, state.absmax
    second = state.state2
    return state.code, state.absmax, second.absmax, second.code, state.offset


class _FrozenProduct(torch.autograd.Function):
    """Unpacks the weight for the product and again for the gradient, so that it is never kept."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, packing: Packing, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(*parts)
        ctx.packing = packing
        return inputs @ unpacked(packing, parts, inputs.dtype).t()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        parts = ctx.saved_tensors
        weight = unpacked(ctx.packing, parts, given[0].dtype)
        return given[0] @ weight, None, *(None for _ in parts)


class _JoinedProduct(torch.autograd.Function):
    """The same for [inputs | narrow products] and [weight | the adapter's second matrix], side by side."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        narrow: Tensor,
        up: Tensor,
        wide: Tensor,
        place: int,
        packing: Packing,
        *parts: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(narrow, up, *parts)
        ctx.packing = packing
        # Each written to its place, not `cat`: of that the compiler makes one kernel that takes four times as long.
        both = inputs.new_empty((packing.shape[0], wide.shape[-1]))
        start = inputs.shape[-1]
        both[:, :start] = unpacked(packing, parts, inputs.dtype)
        both[:, start:] = pad(up, (place, both.shape[1] - start - place - up.shape[1]))
        return wide @ both.t()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        narrow, up, *parts = ctx.saved_tensors
        gradient = given[0]
        to_inputs = (
            gradient @ unpacked(ctx.packing, tuple(parts), gradient.dtype)
            if ctx.needs_input_grad[0]
            else None
        )
        to_up = gradient.flatten(0, -2).t() @ narrow.flatten(0, -2)
        return to_inputs, gradient @ up, to_up, None, None, None, *(None for _ in parts)


def unpacked(packing: Packing, parts: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """The weight in 16 or 32 bits: those that bitsandbytes unpacks; in 16 the same bits.

    Args:
        parts: packed weight, table of the 16 values, scales; with packed scales also their scales, table and offset.
    """
    packed, table, scales, *nested = parts
    if nested:
        scale_scales, scale_table, offset = nested
        places = torch.arange(scales.numel(), device=scales.device) // packing.scale_block
        scales = scale_table[scales.long()] * scale_scales[places] + offset
    whole_blocks = 2 * packed.numel() == packing.block * scales.numel()
    if not torch.compiler.is_compiling() or not whole_blocks:
        weight: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
            packed, scales, packing.block, packing.kind, packing.shape, dtype
        )
        return weight
    pairs = packed.view(-1)
    values = table[torch.stack((pairs >> 4, pairs & 15), dim=-1).view(-1, packing.block).long()]
    return (values * scales[:, None]).to(dtype).view(packing.shape)
