"""What each step of the build saw, kept and dropped, so that nothing is lost silently. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


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

    @property
    def is_balanced(self) -> bool:
        """Whether everything that came in went on or has a reason."""
        return self.kept + sum(self.dropped.values()) == self.seen

    def to_json(self) -> dict[str, object]:
        """For counts.json."""
        return {
            "step": self.step,
            "unit": self.unit,
            "seen": self.seen,
            "kept": self.kept,
            "dropped": dict(self.dropped),
        }

    def in_words(self) -> str:
        """One line of the manifest."""
        return f"{self.step}: {self.seen} {self.unit} seen, {self.kept} kept, {self.seen - self.kept} dropped"


def count_step(
    step: str, unit: str, seen: int, kept: int, reasons: Iterable[str] | Mapping[str, int]
) -> StepCount:
    """`reasons` holds one entry for each that was dropped, or their numbers; sorted here, zeros left out."""
    numbers = Counter(reasons)
    return StepCount(
        step, unit, seen, kept, {reason: number for reason, number in sorted(numbers.items()) if number}
    )
