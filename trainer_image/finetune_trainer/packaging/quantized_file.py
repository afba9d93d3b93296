"""A 16-bit GGUF file made smaller, a tensor at a time, with llama.cpp's own choice of a format for each tensor.

Must not know where the file came from. The choice is that of `llama_tensor_get_type` in llama.cpp's llama-quant.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_contract.run_spec import GgufType
from finetune_trainer.packaging.llama_cpp import quantize_rows

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

QUANTIZED = frozenset({GgufType.Q4_0, GgufType.Q4_K_M})
"""Formats that llama.cpp's converter does not write itself."""
_FILE_TYPES = {GgufType.Q4_0: 2, GgufType.Q4_K_M: 15}
"""`general.file_type`: LLAMA_FTYPE_MOSTLY_Q4_0 and LLAMA_FTYPE_MOSTLY_Q4_K_M."""
_HEAD, _EMBEDDING = "output.weight", "token_embd.weight"
_K_BLOCK, _BLOCK = 256, 32
_INSTEAD = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""For rows that are no multiple of a K-format's block."""
_NUMBERS_AT_ONCE = 1 << 24


def tensor_format(kind: GgufType, name: str, columns: int, layers: int, is_head: bool) -> str:
    """The format of a weight: the name of a GGMLQuantizationType.

    Args:
        columns: numbers in a row; formats work on blocks of a row.
        layers: blocks of the model.
        is_head: the tensor that makes the logits, be it the embedding too.
    """
    wish = "Q4_0" if kind is GgufType.Q4_0 else "Q4_K"
    if is_head:
        wish = "Q6_K"
    elif kind is GgufType.Q4_K_M:
        parts = name.split(".")
        layer = int(parts[1]) if parts[0] == "blk" else 0
        if name.endswith((".attn_v.weight", ".ffn_down.weight")) and _more_bits(layer, layers):
            wish = "Q6_K"
        elif name.endswith(".attn_qkv.weight"):
            wish = "Q5_K"
    if columns % _K_BLOCK:
        wish = _INSTEAD.get(wish, wish)
    return "F16" if columns % _BLOCK else wish


def quantize_file(source: Path, target: Path, kind: GgufType, heartbeat: Callable[[], None]) -> None:
    """Write `target` from the 16-bit file `source`. Memory: some 16 million numbers at a time."""
    from gguf import GGUFReader, GGUFWriter

    reader = GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    layers = int(reader.fields[f"{architecture}.block_count"].contents())
    writer = GGUFWriter(target, architecture, endianess=reader.endianess)
    _copy_facts(reader, writer, kind)
    formats = _formats(reader, kind, layers)
    for tensor in reader.tensors:
        shape, form = _shape_in(tensor, formats[tensor.name])
        size = int(np.prod(shape)) * (
            1 if formats[tensor.name] != tensor.tensor_type else tensor.data.itemsize
        )
        writer.add_tensor_info(tensor.name, shape, form, size, formats[tensor.name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        heartbeat()
        writer.write_tensor_data(_converted(tensor, formats[tensor.name]))
    writer.close()


def _more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _copy_facts(reader: GGUFReader, writer: GGUFWriter, kind: GgufType) -> None:
    from gguf import GGUFValueType

    for name, field in reader.fields.items():
        if name == "general.architecture" or name.startswith("GGUF."):
            continue
        kinds = field.types
        value: Any = _FILE_TYPES[kind] if name == "general.file_type" else field.contents()
        writer.add_key_value(name, value, kinds[0], kinds[-1] if kinds[0] == GGUFValueType.ARRAY else None)


def _formats(reader: GGUFReader, kind: GgufType, layers: int) -> dict[str, GGMLQuantizationType]:
    """The converter leaves in 32 bits what must not be rounded: norms, routers, small vectors."""
    from gguf import GGMLQuantizationType

    names = {tensor.name for tensor in reader.tensors}
    head = _HEAD if _HEAD in names else _EMBEDDING
    formats = {}
    for tensor in reader.tensors:
        formats[tensor.name] = tensor.tensor_type
        if tensor.tensor_type != GGMLQuantizationType.F32 and len(tensor.shape) > 1:
            columns = int(tensor.shape[0])
            wish = tensor_format(kind, tensor.name, columns, layers, tensor.name == head)
            formats[tensor.name] = GGMLQuantizationType[wish]
    return formats


def _shape_in(tensor: Any, form: GGMLQuantizationType) -> tuple[tuple[int, ...], Any]:
    """Shape and numpy type of a tensor's bytes in a format."""
    from gguf import quant_shape_to_byte_shape

    if form == tensor.tensor_type:
        return tuple(tensor.data.shape), tensor.data.dtype
    return tuple(quant_shape_to_byte_shape(tuple(int(n) for n in reversed(tensor.shape)), form)), np.dtype(
        np.uint8
    )


def _converted(tensor: Any, form: GGMLQuantizationType) -> np.ndarray[Any, Any]:
    if form == tensor.tensor_type:
        data: np.ndarray[Any, Any] = tensor.data
        return data
    shape, _ = _shape_in(tensor, form)
    result = np.empty(shape, dtype=np.uint8)
    rows = result.reshape(-1, shape[-1])
    for start, numbers in _numbers(tensor):
        quantize_rows(numbers, int(form), rows[start : start + len(numbers)])
    return result


def _numbers(tensor: Any) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.float32]]]]:
    """The tensor's rows as float32, some at a time, each with the number of its first row."""
    from gguf.quants import dequantize

    columns = int(tensor.shape[0])
    source = tensor.data.reshape(-1, tensor.data.shape[-1])
    step = max(1, _NUMBERS_AT_ONCE // columns)
    for start in range(0, len(source), step):
        part = np.ascontiguousarray(dequantize(source[start : start + step], tensor.tensor_type))
        yield start, part.astype(np.float32, copy=False)
