"""A question with its answer that was written by a language model and has passed every check. A value only."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_contract.sections import Passage


@dataclass(frozen=True)
class WrittenPair:
    """One fact of a section."""

    passage: Passage
    """The section that says it."""
    questions: tuple[str, ...]
    """Wordings of the same question, at least one."""
    answer: str
    """Without citation."""
