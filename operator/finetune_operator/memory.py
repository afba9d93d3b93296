"""What was read of a run last, for as long as nothing has happened to it since: a look at it need not ask again.

What is remembered serves for seeing that nothing is to be done, and for writing notes such as progress. Whoever would
act looks anew first. Kept small, for there are thousands. Must not know what is decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from finetune_operator.children import version_of
from finetune_operator.observed import RunKey
from finetune_operator.packed_json import pack_json, told_metadata, unpack_json

Json = Mapping[str, Any]
Children = TypeVar("Children")


@dataclass(frozen=True)
class Sight(Generic[Children]):
    """A run and its children as they were read."""

    run: dict[str, Any]
    children: Children
    listed: bool = False
    """They come from lists of everything: nobody has looked at the run yet."""


@dataclass(frozen=True)
class _Kept(Generic[Children]):
    run: bytes
    version: str
    children: Children
    listed: bool


class Memory(Generic[Children]):
    """The sights of runs to which nothing has happened since."""

    def __init__(self) -> None:
        self._kept: dict[RunKey, _Kept[Children]] = {}
        self._looking: dict[RunKey, object] = {}
        """Looks that have begun, and of which nothing was heard since."""

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[RunKey]:
        return iter(self._kept)

    def begin(self, key: RunKey) -> object:
        """A look begins: what happens from now on makes worthless what it reads."""
        look = self._looking[key] = object()
        return look

    def keep(self, key: RunKey, look: object, run: Json, children: Children, *, listed: bool = False) -> None:
        """The look is over; it is remembered unless something happened in the meantime."""
        if self._looking.pop(key, None) is look:
            packed = pack_json({**run, "metadata": told_metadata(run)})
            self._kept[key] = _Kept(packed, version_of(run), children, listed)

    def recall(self, key: RunKey) -> Sight[Children] | None:
        """What was read last; None when something has happened since, or nothing was read."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        return Sight(unpack_json(kept.run), kept.children, kept.listed)

    def version(self, key: RunKey) -> str:
        """Of the run, as it was read last; empty when nothing is remembered."""
        kept = self._kept.get(key)
        return kept.version if kept is not None else ""

    def children(self, key: RunKey) -> Children | None:
        """The same without the run."""
        kept = self._kept.get(key)
        return None if kept is None else kept.children

    def forget(self, key: RunKey) -> None:
        """Something happened to the run, or may have."""
        self._kept.pop(key, None)
        self._looking.pop(key, None)
