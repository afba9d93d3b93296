"""Documents of a source on disk, while a run needs them: memory holds where each begins. Knows no source."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from finetune_trainer.dataset.on_disk import Chosen, NamelessFile, Place, ReadOnDemand
from finetune_trainer.dataset.sources.raw_document import RawDocument


class DocumentsOnDisk(ReadOnDemand[RawDocument]):
    """One for each identity, in the order in which the identities came first."""

    def __init__(self, documents: Iterable[RawDocument] = (), folder: Path | None = None) -> None:
        """Write them as they come; `folder` is made when it is missing, None is the system's own."""
        self._file = NamelessFile(folder)
        self._numbers: dict[str, int] = {}
        self._places: list[Place] = []
        for document in documents:
            self.put(document)

    def put(self, document: RawDocument) -> None:
        """Write one more, in the place of one with the same identity."""
        place = self._file.append(json.dumps(asdict(document)).encode())
        number = self._numbers.setdefault(document.post_id, len(self._places))
        if number == len(self._places):
            self._places.append(place)
        else:
            self._places[number] = place

    def by_identity(self) -> Chosen[RawDocument]:
        """The same, in the order of the identities themselves."""
        return Chosen(self, (number for _, number in sorted(self._numbers.items())))

    def __len__(self) -> int:
        return len(self._places)

    def _at(self, index: int) -> RawDocument:
        values = json.loads(self._file.read(self._places[index]))
        names = {name: tuple(values[name]) for name in ("categories", "tags")}
        return RawDocument(**values | names)
