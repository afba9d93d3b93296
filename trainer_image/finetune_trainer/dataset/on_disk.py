"""Values that wait on disk while a run needs them: memory does not grow with the site. Knows no value's meaning.

A file of these has no name: it goes with its last user, also when the process is killed.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from finetune_contract.model import ContractModel

Value = TypeVar("Value")
Row = TypeVar("Row", bound=ContractModel)
Place = tuple[int, int]
"""Where a value begins, and how many bytes it has."""


class NamelessFile:
    """Bytes on disk. `folder` is made when it is missing; None is the system's own."""

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=folder)
        Path(name).unlink()
        self._number = number
        self._end = 0
        weakref.finalize(self, os.close, number)

    def append(self, content: bytes) -> Place:
        """Write at the end; where it stands."""
        place = (self._end, len(content))
        while content:
            written = os.pwrite(self._number, content, self._end)
            self._end += written
            content = content[written:]
        return place

    def read(self, place: Place) -> bytes:
        """What was written there."""
        return os.pread(self._number, place[1], place[0])


class ReadOnDemand(Sequence[Value]):
    """Values that are made when they are asked for: go through them, and make no list of them."""

    def _at(self, index: int) -> Value:
        """The value at an index from 0."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Value]: ...
    def __getitem__(self, index: int | slice) -> Value | Sequence[Value]:
        if isinstance(index, slice):
            return tuple(self._at(place) for place in range(*index.indices(len(self))))
        return self._at(range(len(self))[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


class RowsOnDisk(ReadOnDemand[Row], Generic[Row]):
    """Contract models in the order in which they came, or by a key."""

    def __init__(
        self,
        rows: Iterable[Row],
        model: type[Row],
        folder: Path | None = None,
        key: Callable[[Row], Any] | None = None,
    ) -> None:
        """Write them as they come; with `key`, only the keys are in memory to be sorted."""
        self._file = NamelessFile(folder)
        self._read = model.model_validate_json
        self._starts, self._sizes = array("Q"), array("Q")
        places = (
            (key(row) if key is not None else None, *self._file.append(row.model_dump_json().encode()))
            for row in rows
        )
        for _, start, size in places if key is None else sorted(places):
            self._starts.append(start)
            self._sizes.append(size)

    def __len__(self) -> int:
        return len(self._starts)

    def _at(self, index: int) -> Row:
        return self._read(self._file.read((self._starts[index], self._sizes[index])))


class Chosen(ReadOnDemand[Value]):
    """Some values of another sequence, by their indexes there."""

    def __init__(self, values: Sequence[Value], indexes: Iterable[int]) -> None:
        self._values = values
        self._indexes = array("Q", indexes)

    def __len__(self) -> int:
        return len(self._indexes)

    def _at(self, index: int) -> Value:
        return self._values[self._indexes[index]]
