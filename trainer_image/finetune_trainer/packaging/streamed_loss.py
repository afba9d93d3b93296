"""The loss of a model whose weights stay in their files: each is read when its layer is computed, and let go.

Serves two models: the merged one as it is, and the one that was trained, whose base is rounded to 4 bits. Computes in
float32 on the CPU. Must not know why the loss is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from finetune_contract.run_spec import QuantizationSpec
from finetune_trainer.packaging.lora_weights import LoraWeights
from finetune_trainer.training.adapted_tensors import tensor_of_layer
from finetune_trainer.training.adapter import linear_layer_names
from finetune_trainer.training.encoding import EncodedExample
from finetune_trainer.training.weight_files import weight_files

logger = logging.getLogger(__name__)

_NUMBERS_AT_ONCE = 1 << 25
"""Of a weight in float32: 128 MiB."""

WeightChange = Callable[[str, Tensor], Tensor]
"""Name of a layer and its weight, as the layer holds it; gives the weight to compute with."""


def as_trained(lora: LoraWeights, quantization: QuantizationSpec) -> WeightChange:
    """The weights of training: the base in 4 bits, as bitsandbytes rounds it, and the adapter beside it."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    layers = frozenset(lora.layers)

    def change(layer: str, weight: Tensor) -> Tensor:
        if layer not in layers:
            return weight
        rows = (weight.T if lora.transposed else weight).float().contiguous()
        packed, state = quantize_4bit(
            rows, quant_type=quantization.type, compress_statistics=quantization.double_quantization
        )
        rounded: Tensor = dequantize_4bit(packed, state)
        return (rounded.T if lora.transposed else rounded).add_(lora.change_of(layer))

    return change


def mean_answer_loss(
    folder: Path,
    rows: Sequence[EncodedExample],
    change: WeightChange | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> float | None:
    """Mean cross entropy over the answer tokens; None for a model that has large weights outside its linear layers.

    Rows are padded at their ends: what comes later is not seen by what came before.

    Args:
        folder: a Hugging Face model in safetensors.
        heartbeat: called at each layer.
    """
    with ExitStack() as files:
        model = _load(folder, files, change, heartbeat)
        if model is None:
            logger.warning("the loss is not measured: the model has large weights outside its linear layers")
            return None
        longest = max(len(row) for row in rows)
        token_ids = torch.tensor([[*row.token_ids, *[0] * (longest - len(row))] for row in rows])
        answers = torch.zeros(token_ids.shape, dtype=torch.bool)
        predicts = torch.zeros(token_ids.shape, dtype=torch.bool)
        for number, row in enumerate(rows):
            start = len(row.prompt_ids)
            answers[number, start : len(row)] = True
            predicts[number, start - 1 : len(row) - 1] = True
        head: torch.nn.Module = model.get_output_embeddings()
        head.register_forward_pre_hook(lambda _, given: (given[0][predicts],))
        with torch.inference_mode():
            logits = model(input_ids=token_ids, use_cache=False).logits
            return float(cross_entropy(logits.float(), token_ids[answers]))


def _load(folder: Path, files: ExitStack, change: WeightChange | None, heartbeat: Callable[[], None]) -> Any:
    """The model without its weights; linear layers read theirs from the files. None when that cannot be."""
    from accelerate import init_empty_weights  # type: ignore[import-untyped]
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with init_empty_weights(include_buffers=False):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.eval()
    opened = [files.enter_context(safe_open(path, "pt")) for path in weight_files(folder)]
    file_of = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - no mapping

    def read(name: str) -> Tensor | None:
        found = tensor_of_layer(name.removesuffix(".weight"), file_of) if name.endswith(".weight") else None
        found = found or (name if name in file_of else None)
        return None if found is None else file_of[found].get_tensor(found)

    adapted = frozenset(linear_layer_names(model))
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    done: set[str] = set()
    for name, module in model.named_modules():
        if not (module is embedding or isinstance(module, torch.nn.Linear | Conv1D)):
            continue
        weight = read(f"{name}.weight")
        if weight is None and module is head:
            weight = read(f"{_name_of(model, embedding)}.weight")
        if weight is None:
            return None
        bias = None if getattr(module, "bias", None) is None else read(f"{name}.bias")
        module.weight = torch.nn.Parameter(weight, requires_grad=False)
        if module is embedding:
            module.forward = _embedding(weight, getattr(module, "embed_scale", None))
        else:
            used = change if name in adapted else None
            module.forward = _linear(weight, bias, isinstance(module, Conv1D), name, used, heartbeat)
        done |= {f"{name}.weight", f"{name}.bias"}
    for name, parameter in list(model.named_parameters()):
        if name in done:
            continue
        value = read(name)
        if value is None or parameter.numel() > _NUMBERS_AT_ONCE or parameter.ndim > 2:
            return None
        owner, _, own = name.rpartition(".")
        setattr(model.get_submodule(owner), own, torch.nn.Parameter(value.float(), requires_grad=False))
    return model


def _name_of(model: Any, wanted: torch.nn.Module) -> str:
    return next(str(name) for name, module in model.named_modules() if module is wanted)


def _linear(
    weight: Tensor,
    bias: Tensor | None,
    columns_first: bool,
    layer: str,
    change: WeightChange | None,
    heartbeat: Callable[[], None],
) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        heartbeat()
        used = weight if change is None else change(layer, weight)
        used = used.T if columns_first else used
        step = max(1, _NUMBERS_AT_ONCE // used.shape[1])
        parts = [linear(x, used[n : n + step].float()) for n in range(0, used.shape[0], step)]
        result = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return result if bias is None else result + bias.float()

    return forward


def _embedding(table: Tensor, scale: Tensor | float | None) -> Callable[[Tensor], Tensor]:
    def forward(token_ids: Tensor) -> Tensor:
        looked_up = table[token_ids].float()
        return looked_up if scale is None else looked_up * scale

    return forward
