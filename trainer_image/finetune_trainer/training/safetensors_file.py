"""Single tensors of a safetensors file, read and replaced where they lie. Must not know what they mean.

The format (github.com/huggingface/safetensors): 8 bytes with the length of a JSON header, the header, the bytes of all
tensors. A tensor that keeps its type and shape keeps its place, so a file of any size is changed a tensor at a time.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Number formats that a weight may be added to."""
_LENGTH = struct.Struct("<Q")
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies, and what it is."""

    dtype: str
    """In the words of the format: `BF16`, `F8_E4M3`, ..."""
    shape: tuple[int, ...]
    start: int
    """Bytes from the beginning of the file."""
    size: int
    """Bytes."""


def read_places(path: Path) -> dict[str, TensorPlace]:
    """All tensors of a file by name; only its header is read.

    Raises:
        ValueError: it is not a whole safetensors file.
    """
    with path.open("rb") as file:
        first = file.read(_LENGTH.size)
        length = _LENGTH.unpack(first)[0] if len(first) == _LENGTH.size else _LARGEST_HEADER + 1
        if length > _LARGEST_HEADER or len(content := file.read(length)) != length:
            raise ValueError(f"{path.name}: no whole safetensors file")
    header = json.loads(content)
    data = _LENGTH.size + length
    places = {
        name: TensorPlace(
            entry["dtype"],
            tuple(entry["shape"]),
            data + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }
    end = max((place.start + place.size for place in places.values()), default=data)
    if path.stat().st_size != end:
        raise ValueError(f"{path.name}: has {path.stat().st_size} bytes, its header tells of {end}")
    return places


@contextmanager
def open_to_change(path: Path) -> Iterator[BinaryIO]:
    """The file for `read_tensor` and `write_tensor`; its bytes are on the disk when it is closed."""
    with path.open("r+b") as file:
        yield file
        file.flush()


def read_tensor(file: BinaryIO, place: TensorPlace) -> torch.Tensor:
    """A copy in memory, in the type of the file; KeyError when DTYPES lacks that type."""
    dtype = DTYPES[place.dtype]
    file.seek(place.start)
    content = bytearray(place.size)
    file.readinto(content)  # type: ignore[attr-defined]
    return torch.frombuffer(content, dtype=dtype).reshape(place.shape)


def write_tensor(file: BinaryIO, place: TensorPlace, tensor: torch.Tensor) -> None:
    """Replace a tensor by one of the same shape, rounded to the type of the file."""
    if tuple(tensor.shape) != place.shape:
        raise ValueError(f"shape {tuple(tensor.shape)} does not fit the place of {place.shape}")
    content = tensor.to(DTYPES[place.dtype]).contiguous().reshape(-1).view(torch.uint8).numpy()
    file.seek(place.start)
    file.write(content.data)
