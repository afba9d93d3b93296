"""The 4-bit base dealt out over the processes of a training, for a base that does not fit one GPU.

Every process keeps a piece of each packed weight. Before a layer's way forth and again before its way back all pieces
are gathered, and the bytes of the layer before are let go. The base learns nothing, so nothing is sent the other way,
and what is sent are 4 bits a weight: the numbers are those of a whole base, to the bit. Scales stay in every process.

All processes use the layers in the same order and equally often; one that has nothing to do follows. Embeddings, head
and norms are whole everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor
from transformers import BitsAndBytesConfig
from transformers.integrations.bitsandbytes import Bnb4bitQuantize
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from finetune_trainer.training.compiled_layers import decoder_layers
from finetune_trainer.training.ranks import Gathering, Ranks

_METHOD = "dealt_bitsandbytes_4bit"
"""What transformers calls it, in this process alone."""


@register_quantization_config(_METHOD)
class DealtConfig(BitsAndBytesConfig):
    """bitsandbytes' 4 bits, of which a process keeps its piece as soon as a weight is packed."""

    def __init__(self, number: int = 0, count: int = 1, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]
        self.quant_method = _METHOD  # type: ignore[assignment]
        self.number, self.count = number, count


@register_quantizer(_METHOD)
class _DealtQuantizer(Bnb4BitHfQuantizer):
    def get_quantize_ops(self) -> _PackAndCut:
        return _PackAndCut(self)  # type: ignore[no-untyped-call]


class _PackAndCut(Bnb4bitQuantize):
    """While a model is loaded: one weight at a time is whole."""

    def convert(self, *given: Any, **named: Any) -> dict[str, Tensor]:  # type: ignore[override]
        config: DealtConfig = self.hf_quantizer.quantization_config
        packed: dict[str, Tensor] = super().convert(*given, **named)
        for weight in packed.values():
            weight.data = piece_of(weight.data, config.number, config.count)
        return packed


def piece_of(packed: Tensor, number: int, count: int) -> Tensor:
    """One of `count` pieces of equal length; the last ones are filled up with zeros where it does not come out even.

    Args:
        packed: (bytes, 1)
    Returns:
        (length, 1), in memory of its own
    """
    length = -(-len(packed) // count)
    piece = packed.new_zeros((length, 1))
    own = packed[number * length : (number + 1) * length]
    piece[: len(own)] = own
    return piece


class _DealtWeight:
    """A packed weight whose bytes are there while they are used; whoever holds the tensor sees them come and go."""

    def __init__(self, weight: Any, ranks: Ranks) -> None:
        rows, columns = weight.quant_state.shape
        size = (rows * columns + 1) // 2
        self.piece = weight.data if len(weight) < size else piece_of(weight.data, ranks.number, ranks.count)
        self.whole = self.piece.new_empty((ranks.count * len(self.piece), 1))
        self._ranks = ranks
        weight.data = self.whole[:size]
        self.let_go()

    def gather(self) -> Gathering:
        """Ask for the bytes; they are there when the gathering is over."""
        self.whole.untyped_storage().resize_(self.whole.numel())
        return self._ranks.gather(self.whole, self.piece)

    def let_go(self) -> None:
        """Give the memory back."""
        self.whole.untyped_storage().resize_(0)


class LayerWindow:
    """Which layers' bytes are there: those of the layer in use, and soon those of the next."""

    def __init__(self, layers: Sequence[Sequence[_DealtWeight]]) -> None:
        self._layers = layers
        self._asked: dict[int, list[Gathering]] = {}
        """The layers that are there or on their way, and what is still to wait for."""

    def __len__(self) -> int:
        return len(self._layers)

    def use(self, number: int, following: int) -> None:
        """Come back when the layer is there, with the one to follow on its way; there may be none to follow."""
        for other in self._asked.keys() - {number, following}:
            self._wait(other)
            for weight in self._layers[other]:
                weight.let_go()
            del self._asked[other]
        self._ask(number)
        self._wait(number)
        if 0 <= following < len(self):
            self._ask(following)

    def forth(self, number: int) -> None:
        """Before the layer's way forth."""
        self.use(number, number + 1)

    def back(self, number: int) -> None:
        """Before the layer's way back."""
        self.use(number, number - 1)

    def follow(self) -> None:
        """Take part in a row that others learn."""
        for number in range(len(self)):
            self.forth(number)
        for number in reversed(range(len(self))):
            self.back(number)

    def _ask(self, number: int) -> None:
        if number not in self._asked:
            self._asked[number] = [weight.gather() for weight in self._layers[number]]

    def _wait(self, number: int) -> None:
        while self._asked[number]:
            self._asked[number].pop().wait()


def deal_out(model: torch.nn.Module, ranks: Ranks) -> LayerWindow:
    """Keep a piece of every decoder layer's 4-bit weights, and let the layers gather them when they are called."""
    layers = decoder_layers(model)
    window = LayerWindow(
        [
            [_DealtWeight(part.weight, ranks) for part in layer.modules() if isinstance(part, Linear4bit)]
            for layer in layers
        ]
    )
    kinds = {
        type(layer) for layer in layers
    }  # one class for all layers of a kind: another would be compiled again
    classes = {kind: type(kind.__name__, (_GatheredLayer, kind), {}) for kind in kinds}
    for number, layer in enumerate(layers):
        layer.__class__ = classes[type(layer)]
        layer._window, layer._number = window, number  # type: ignore[assignment]
    return window


class _GatheredLayer(torch.nn.Module):
    """In front of a decoder layer's own class. Around the call, for a compiler looks into hooks and not there."""

    _window: LayerWindow
    _number: int

    def __call__(self, *given: Any, **named: Any) -> Any:
        window, number = self._window, self._number
        window.forth(number)
        found = super().__call__(*given, **named)
        hidden: Tensor = found[0] if isinstance(found, tuple) else found
        if hidden.requires_grad:
            hidden.register_hook(lambda _: window.back(number))  # type: ignore[no-untyped-call]
        return found
