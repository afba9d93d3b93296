"""Which passages of which pages fit a question, and whether they fit well enough to ask the model at all.

The index is behind a protocol; must not know which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from finetune_contract.prompt import MAX_PASSAGES
from finetune_contract.sections import Passage, PassageIndex, content_words, split_sections

MAX_DOCUMENTS = 8
MAX_NEAREST = 3
SHORT_FOLLOW_UP_WORDS = 3
"""A question with so few words that carry meaning leans on the one before."""


@dataclass(frozen=True)
class FoundDocument:
    """A page that the search returned."""

    title: str
    url: str
    content: str
    """Markdown."""


@dataclass(frozen=True)
class Link:
    """A page to offer to the reader."""

    title: str
    url: str


@dataclass(frozen=True)
class Retrieved:
    """What the site knows about a question."""

    passages: tuple[Passage, ...]
    """What the model is shown; empty when nothing fits well enough."""
    nearest: tuple[Link, ...]
    """The pages that come closest, whether they fit or not."""
    score: float
    """Of the best passage, 0 to 1."""

    @property
    def fits(self) -> bool:
        """Whether the model should be asked."""
        return bool(self.passages)


class DocumentIndex(Protocol):
    """A search over the site."""

    async def search(self, text: str, limit: int) -> Sequence[FoundDocument]:
        """The pages that fit best, best first.

        Raises:
            IndexUnavailable: the search does not answer.
        """

    async def close(self) -> None:
        """Let connections go."""


async def retrieve(
    index: DocumentIndex, question: str, previous_question: str | None, min_score: float
) -> Retrieved:
    """Search for the question; a short follow-up that finds nothing is tried again together with the one before."""
    found = await _retrieve(index, question, min_score)
    leans = previous_question is not None and len(set(content_words(question))) <= SHORT_FOLLOW_UP_WORDS
    if found.fits or not leans:
        return found
    together = await _retrieve(index, f"{previous_question} {question}", min_score)
    return together if together.fits else found


async def _retrieve(index: DocumentIndex, text: str, min_score: float) -> Retrieved:
    documents = await index.search(text, MAX_DOCUMENTS)
    return choose(text, documents, min_score)


def choose(question: str, documents: Sequence[FoundDocument], min_score: float) -> Retrieved:
    """The passages for the prompt out of the pages that were found."""
    passages = [
        Passage(document.title, section.heading, section.text, document.url)
        for document in documents
        for section in split_sections(document.content)
    ]
    ranked = PassageIndex(passages).rank(question, limit=max(MAX_PASSAGES, 4 * MAX_NEAREST))
    best = ranked[0][1] if ranked else 0.0
    links = [Link(passage.title, passage.url) for passage, _ in ranked]
    return Retrieved(
        passages=tuple(passage for passage, _ in ranked[:MAX_PASSAGES]) if best >= min_score else (),
        nearest=tuple(dict.fromkeys(links))[:MAX_NEAREST],
        score=best,
    )
