"""Documents of a source on disk, while a run needs them: memory holds where each begins. Knows no source."""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Generic, TypeVar, overload

from finetune_trainer.dataset.sources.raw_document import RawDocument

Place = TypeVar("Place")


class DocumentsByPlace(Sequence[RawDocument], Generic[Place]):
    """Documents that are read when they are asked for; memory holds where each is found."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places

    def _document(self, place: Place) -> RawDocument:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> RawDocument: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RawDocument]: ...
    def __getitem__(self, index: int | slice) -> RawDocument | Sequence[RawDocument]:
        if isinstance(index, slice):
            return tuple(self._document(place) for place in self._places[index])
        return self._document(self._places[index])


class DocumentsOnDisk(DocumentsByPlace[tuple[int, int]]):
    """In the order of their identities. The file has no name and goes with its last user."""

    def __init__(self, documents: Iterable[RawDocument], folder: Path | None = None) -> None:
        """Write them as they come; `folder` is made when it is missing, None is the system's own."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._file, name = tempfile.mkstemp(dir=folder)
        weakref.finalize(self, os.close, self._file)
        Path(name).unlink()
        places: list[tuple[str, int, int]] = []
        start = 0
        with open(self._file, "wb", closefd=False) as file:
            for document in documents:
                size = file.write(json.dumps(asdict(document)).encode())
                places.append((document.post_id, start, size))
                start += size
        super().__init__([(start, size) for _, start, size in sorted(places)])

    def _document(self, place: tuple[int, int]) -> RawDocument:
        start, size = place
        values = json.loads(os.pread(self._file, size, start))
        names = {name: tuple(values[name]) for name in ("categories", "tags")}
        return RawDocument(**values | names)
