"""Which passages of which pages fit a question, and whether they fit well enough to ask the model at all.

The index is behind a protocol; must not know which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from finetune_contract.prompt import MAX_PASSAGES
from finetune_contract.sections import Passage, PassageIndex, content_words, leans_on_previous, split_sections

MAX_DOCUMENTS = 16
MAX_NEAREST = 3


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


@dataclass(frozen=True)
class Ranked:
    """A passage and how well it fits."""

    passage: Passage
    score: float


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
    """What the site knows; a question that leans on the one before is first searched together with it."""
    if previous_question is not None and leans_on_previous(question):
        together = f"{previous_question} {question}"
        found = choose(together, await index.search(together, MAX_DOCUMENTS), min_score, must_hold=question)
        if found.fits:
            return found
    return choose(question, await index.search(question, MAX_DOCUMENTS), min_score)


def choose(
    question: str, documents: Sequence[FoundDocument], min_score: float, must_hold: str = ""
) -> Retrieved:
    """The passages for the prompt out of the pages that were found.

    Args:
        question: what the passages are ranked by.
        documents: what the search returned.
        min_score: the best passage must hold this share of the question's information, 0 to 1.
        must_hold: and the same share of this; without it, an old question would carry a new one past the gate.
    """
    index = PassageIndex(
        [
            Passage(document.title, section.heading, section.text, document.url)
            for document in documents
            for section in split_sections(document.content)
        ]
    )
    limit = max(MAX_PASSAGES, 4 * MAX_NEAREST)
    if content_words(must_hold):
        ranked = [
            Ranked(passage, score) for passage, _, score in index.rank_follow_up(question, must_hold, limit)
        ]
    else:
        ranked = [Ranked(passage, score) for passage, score in index.rank(question, limit)]
    best = ranked[0].score if ranked else 0.0
    links = [Link(found.passage.title, found.passage.url) for found in ranked]
    return Retrieved(
        passages=tuple(found.passage for found in ranked[:MAX_PASSAGES]) if best >= min_score else (),
        nearest=tuple(dict.fromkeys(links))[:MAX_NEAREST],
        score=best,
    )
