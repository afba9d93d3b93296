"""Counts bytes: of a model as it lies in memory, of what autograd keeps, and of all tensors alive at one time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoConfig, AutoModelForCausalLM

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 1024,
    },
    "smollm2": {
        "model_type": "llama",
        "hidden_size": 144,
        "intermediate_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 2048,
        "tie_word_embeddings": True,
    },
    "qwen2": {
        "model_type": "qwen2",
        "hidden_size": 112,
        "intermediate_size": 608,
        "num_hidden_layers": 4,
        "num_attention_heads": 7,
        "num_key_value_heads": 1,
        "vocab_size": 4096,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        "model_type": "gemma2",
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 8192,
        "sliding_window": 64,
    },
}
"""Small models with the proportions of the families; two fields of a config.json are left to the family."""


def save_model(folder: Path, shape: str) -> Path:
    """Random weights of a shape in a Hugging Face folder."""
    fields = dict(SHAPES[shape])
    config = AutoConfig.for_model(
        fields.pop("model_type"), pad_token_id=0, bos_token_id=1, eos_token_id=2, **fields
    )
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def tensors_of(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Parameters, buffers, and the scales and tables of 4-bit weights."""
    for tensor in [*model.parameters(), *model.buffers()]:
        yield tensor
        state = getattr(tensor, "quant_state", None)
        while state is not None:
            yield from (part for part in vars(state).values() if isinstance(part, torch.Tensor))
            state = state.state2


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the distinct storages."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def kept_for_the_way_back(
    model: torch.nn.Module,
    forward: Callable[[], torch.Tensor],
    counts: Callable[[torch.Tensor], bool] = lambda tensor: True,
) -> int:
    """Bytes of the distinct storages that autograd keeps of a forward pass, without those of the model.

    Args:
        counts: tensors of which it says no are left out.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors_of(model)}
    kept: list[weakref.ref[torch.Tensor]] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own and counts(tensor):
            kept.append(weakref.ref(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    size = storage_bytes(tensor for reference in kept if (tensor := reference()) is not None)
    del loss
    return size


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that were made inside and are alive: now, and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {
            tensor.untyped_storage()._cdata
            for tensor in tree_iter((args, kwargs))
            if isinstance(tensor, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage(), given)
        return result

    def _see(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in given or key in self._alive:
            return
        size = storage.nbytes()
        self._alive[key] = weakref.ref(storage, lambda _: self._gone(key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        del self._alive[key]
        self.now -= size

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
