"""What each step of the build saw, kept and dropped, so that nothing is lost silently. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from finetune_contract.artifacts import Document
from finetune_trainer.dataset.cleaned_documents import NotedDocument
from finetune_trainer.dataset.review import REMOVED_REASON, Outcome, Reviewed
from finetune_trainer.dataset.sources.raw_document import DroppedDocument, Harvest
from finetune_trainer.dataset.split import Split


@dataclass(frozen=True)
class StepCount:
    """One step: `seen` is what came in, `kept` what went on."""

    step: str
    unit: str
    """What is counted, in the plural."""
    seen: int
    kept: int
    dropped: Mapping[str, int]
    """By reason."""
    noted: Mapping[str, int] = field(default_factory=dict)
    """Of those kept, the ones that a person should look at, by reason."""

    @property
    def is_balanced(self) -> bool:
        """Whether everything that came in went on or has a reason."""
        return self.kept + sum(self.dropped.values()) == self.seen

    def to_json(self) -> dict[str, object]:
        """For counts.json."""
        counts: dict[str, object] = {
            "step": self.step,
            "unit": self.unit,
            "seen": self.seen,
            "kept": self.kept,
            "dropped": dict(self.dropped),
        }
        return counts | ({"noted": dict(self.noted)} if self.noted else {})

    def in_words(self) -> str:
        """One line of the manifest."""
        noted = f", {sum(self.noted.values())} to be looked at" if self.noted else ""
        return f"{self.step}: {self.seen} {self.unit} seen, {self.kept} kept, {self.seen - self.kept} dropped{noted}"


def count_step(
    step: str,
    unit: str,
    seen: int,
    kept: int,
    reasons: Iterable[str] | Mapping[str, int],
    noted: Iterable[str] = (),
) -> StepCount:
    """`reasons` holds one entry for each that was dropped, or their numbers; `noted` one for each to be looked at."""
    return StepCount(step, unit, seen, kept, _sorted_counts(reasons), _sorted_counts(noted))


def count_documents(
    harvests: Mapping[str, Harvest],
    documents: Sequence[Document],
    dropped: Sequence[DroppedDocument],
    noted: Sequence[NotedDocument] = (),
) -> list[StepCount]:
    """What the sources offered and what cleaning left."""
    read = sum(len(harvest.documents) for harvest in harvests.values())
    not_read = Counter(entry.reason for harvest in harvests.values() for entry in harvest.dropped)
    not_cleaned = Counter(entry.reason for entry in dropped) - not_read
    return [
        count_step("sources", "documents", read + sum(not_read.values()), read, not_read),
        count_step(
            "cleaning", "documents", read, len(documents), not_cleaned, [entry.reason for entry in noted]
        ),
    ]


def count_snapshot(written: Sequence[Document], snapshot: Sequence[Document]) -> StepCount:
    """What was written into the knowledge base and what it gave back; it may hold more than this run read."""
    held = {(document.source, document.post_id) for document in snapshot}
    missing = sum((document.source, document.post_id) not in held for document in written)
    seen = len(snapshot) + missing
    return count_step(
        "knowledge base", "documents", seen, len(snapshot), {"not given back by the knowledge base": missing}
    )


def count_examples(drafts: int, split: Split) -> StepCount:
    """Drafts of all kinds, and those that went into a side of the dataset."""
    kept = len(split.training) + len(split.evaluation) + len(split.transfer)
    return count_step("examples", "examples", drafts, kept, split.left_out)


def count_review(before: int, reviewed: Reviewed) -> StepCount:
    """Rows before people's corrections and after them."""
    after = sum(len(side) for side in reviewed.sides)
    return count_step("review", "examples", before, after, {REMOVED_REASON: reviewed.count(Outcome.REMOVED)})


def _sorted_counts(reasons: Iterable[str] | Mapping[str, int]) -> dict[str, int]:
    return {reason: number for reason, number in sorted(Counter(reasons).items()) if number}
