"""How much memory a GGUF model will need, told from its header before anything is loaded. Knows no cgroups."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MIB = 1024 * 1024
_MAGIC = b"GGUF"
_REPACKED_TENSOR_TYPES = frozenset({2, 20})
"""Q4_0 and IQ4_NL are laid out anew for the processor while loading: a second copy, beside the mapped file."""
_KV_BYTES_PER_NUMBER = 2
_OVERHEAD_BYTES = 100 * _MIB
"""Compute buffers, the HTTP server, the interpreter."""
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class ModelShape:
    """The facts that decide about memory."""

    file_bytes: int
    repacked: bool
    layers: int
    kv_numbers_per_token_and_layer: int


@dataclass(frozen=True)
class MemoryNeed:
    """An estimate, by cause."""

    weights_bytes: int
    context_bytes: int
    overhead_bytes: int

    @property
    def total_bytes(self) -> int:
        """All causes together."""
        return self.weights_bytes + self.context_bytes + self.overhead_bytes

    def refusal(self, limit_bytes: int | None) -> str | None:
        """Why the model does not fit into the limit, with the numbers and the remedy; None when it fits."""
        if limit_bytes is None or self.total_bytes <= limit_bytes:
            return None
        return (
            f"the model needs about {_mib(self.total_bytes)} MiB (weights {_mib(self.weights_bytes)}, context"
            f" {_mib(self.context_bytes)}, other {_mib(self.overhead_bytes)}), the container's memory limit is"
            f" {_mib(limit_bytes)} MiB; raise resources.limits.memory to at least {_mib(self.total_bytes)}Mi, or"
            " serve a smaller or more strongly quantised model"
        )


def estimate(shape: ModelShape, context_tokens: int) -> MemoryNeed:
    """Memory for the weights, the context of all slots together, and what comes on top."""
    return MemoryNeed(
        weights_bytes=shape.file_bytes * (2 if shape.repacked else 1),
        context_bytes=context_tokens
        * shape.layers
        * shape.kv_numbers_per_token_and_layer
        * _KV_BYTES_PER_NUMBER,
        overhead_bytes=_OVERHEAD_BYTES,
    )


def read_shape(path: Path) -> ModelShape:
    """Read the header of a GGUF file; the weights are not touched.

    Raises:
        ValueError: it is not a GGUF file of version 2 or 3, or it ends too early.
    """
    try:
        with path.open("rb") as file:
            return _read_shape(file, path.stat().st_size)
    except (struct.error, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path}: not a whole GGUF file ({error}); package the model again") from error


def _read_shape(file: BinaryIO, size: int) -> ModelShape:
    if file.read(4) != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = _scalar(file, "<I")
    if version not in (2, 3):
        raise ValueError(f"version {version}; expected 2 or 3")
    tensors, pairs = int(_scalar(file, "<Q")), int(_scalar(file, "<Q"))
    facts: dict[str, object] = {}
    for _ in range(pairs):
        name = _string(file)
        facts[name] = _value(file, int(_scalar(file, "<I")))
    types: set[int] = set()
    for _ in range(tensors):
        _string(file)
        dimensions = int(_scalar(file, "<I"))
        _skip(file, 8 * dimensions)
        types.add(int(_scalar(file, "<I")))
        _skip(file, 8)
    architecture = facts.get("general.architecture", "")

    def fact(name: str, otherwise: int) -> int:
        value = facts.get(f"{architecture}.{name}")
        if isinstance(value, list):
            value = max((item for item in value if isinstance(item, int)), default=otherwise)
        return value if isinstance(value, int) else otherwise

    heads = fact("attention.head_count", 1)
    width = fact("embedding_length", 0) // max(1, heads)
    return ModelShape(
        file_bytes=size,
        repacked=bool(types & _REPACKED_TENSOR_TYPES),
        layers=fact("block_count", 0),
        kv_numbers_per_token_and_layer=fact("attention.head_count_kv", heads)
        * (fact("attention.key_length", width) + fact("attention.value_length", width)),
    )


def _value(file: BinaryIO, kind: int) -> object:
    if kind in _SCALARS:
        return _scalar(file, _SCALARS[kind])
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        raise ValueError(f"unknown value type {kind}")
    item, count = int(_scalar(file, "<I")), int(_scalar(file, "<Q"))
    if item in _SCALARS and count > 1024:
        _skip(file, count * struct.calcsize(_SCALARS[item]))
        return None
    read: Callable[[], object] = (lambda: _string(file)) if item == _STRING else (lambda: _value(file, item))
    values: list[object] = []
    for _ in range(count):
        value = read()
        if len(values) < 1024:
            values.append(value)
    return values


def _scalar(file: BinaryIO, form: str) -> int | float:
    number: int | float = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return number


def _string(file: BinaryIO) -> str:
    length = int(_scalar(file, "<Q"))
    content = file.read(length) if length < 64 * _MIB else b""
    if len(content) != length:
        raise ValueError("a text in the header is cut off")
    return content.decode("utf-8", "replace")


def _skip(file: BinaryIO, size: int) -> None:
    file.seek(size, 1)


def _mib(size: int) -> int:
    return -(-size // _MIB)
