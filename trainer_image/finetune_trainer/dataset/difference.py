"""What changed from one dataset to another: documents and rows that came, went or changed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from finetune_contract.artifacts import Document, Example

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was."""

    name: str
    """Address of a document, or the question of a row."""
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Difference:
    """Of one sort of thing, in the order of the new dataset; what went is in the order of the old one."""

    added: tuple[Change, ...]
    removed: tuple[Change, ...]
    changed: tuple[Change, ...]
    same: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        return not (self.added or self.removed or self.changed)


def compare_documents(old: Sequence[Document], new: Sequence[Document]) -> Difference:
    """By source and identity; a document has changed when any of its properties has."""
    return _compare(
        {(row.source, row.post_id): (row.post_url, row.model_dump_json()) for row in old},
        {(row.source, row.post_id): (row.post_url, row.model_dump_json()) for row in new},
        lambda content: "",
    )


def compare_rows(old: Sequence[Example], new: Sequence[Example]) -> Difference:
    """By row id; a row has changed when its answer or its prompt has."""
    return _compare(
        {row.id: (row.question, row.model_dump_json()) for row in old},
        {row.id: (row.question, row.model_dump_json()) for row in new},
        lambda content: Example.model_validate_json(content).answer,
    )


def _compare(
    old: Mapping[Key, tuple[str, str]],
    new: Mapping[Key, tuple[str, str]],
    shown: Callable[[str], str],
) -> Difference:
    both = [key for key in new if key in old]
    return Difference(
        added=tuple(Change(new[key][0], after=shown(new[key][1])) for key in new if key not in old),
        removed=tuple(Change(old[key][0], before=shown(old[key][1])) for key in old if key not in new),
        changed=tuple(
            Change(new[key][0], shown(old[key][1]), shown(new[key][1]))
            for key in both
            if old[key] != new[key]
        ),
        same=sum(old[key] == new[key] for key in both),
    )
