"""From drafts to the two sides: what is taught, and what is asked to see whether it was learnt.

Drafts come and rows go one at a time, and wait on disk: memory does not grow with the site.

Evaluation asks about facts that were taught, in phrasings that were not. Both sides are ordered so that every
prefix is a good mixture: training may stop early, and evaluation may ask only the first questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.artifacts import Example
from finetune_contract.prompt import CITATION
from finetune_contract.run_spec import ExampleKind, SplitSpec
from finetune_trainer.dataset.drafts_on_disk import Card, DraftsOnDisk, hash_of, question_hash
from finetune_trainer.dataset.examples import SHARES, WITHOUT_SOURCES
from finetune_trainer.dataset.examples.draft import Draft
from finetune_trainer.dataset.examples.duplicates import are_nearly_the_same, what_is_asked_about
from finetune_trainer.dataset.examples.typos import with_typos
from finetune_trainer.dataset.on_disk import RowsOnDisk

MIN_EVALUATION_PER_KIND = 4
MIN_WORDINGS = 3
"""What has to be known by heart is taught in so many wordings before the next facts have their turn, and the evaluation
asks only for such facts: one that is said once is not learnt."""


@dataclass(frozen=True)
class Split:
    """The dataset's two sides, and how many drafts went into neither. The rows may lie on disk."""

    training: Sequence[Example]
    evaluation: Sequence[Example]
    left_out: Mapping[str, int]
    """Number of drafts by reason."""
    transfer: Sequence[Example] = ()
    """Questions about documents that training never sees."""
    drafts: int = 0
    """How many came in."""


def split_examples(
    drafts: Mapping[ExampleKind, Iterable[Draft]],
    spec: SplitSpec,
    max_per_document: int,
    *,
    untaught: Mapping[ExampleKind, Iterable[Draft]] | None = None,
    shares: Mapping[ExampleKind, float] = SHARES,
    typo_share: float = 0.0,
    folder: Path | None = None,
) -> Split:
    """Choose, mix and part the drafts; the same drafts and spec give the same sides in the same order.

    Args:
        drafts: about the documents that are taught; gone through once.
        spec: how much is kept back.
        max_per_document: training examples.
        untaught: about the documents that are not taught, in reserved phrasings.
        shares: how the kinds mix.
        typo_share: share of the questions that are asked with typing mistakes.
        folder: where rows wait; None is the system's own.
    """
    shelf = DraftsOnDisk(spec.seed, folder)
    for kind, rows in drafts.items():
        at_once = MIN_WORDINGS if kind in WITHOUT_SOURCES else 1
        shelf.add((f"taught {kind.value}", f"asked {kind.value}"), rows, at_once)
    for kind, rows in (untaught or {}).items():
        shelf.add(("", f"strange {kind.value}"), rows)

    left_out: Counter[str] = Counter()
    taught = {
        kind: _distinct(f"taught {kind.value}", kind, shelf.cards(f"taught {kind.value}"), shelf, left_out)
        for kind in drafts
    }
    mixed = _mixed(taught, shares, left_out)
    seen, said, counts = _Questions(shelf), _Said(shelf), Counter[ExampleKind]()

    def chosen() -> Iterator[Example]:
        for card in _capped(mixed, max_per_document, left_out):
            example = shelf.example(card)
            [asked] = with_typos([example], typo_share, spec.seed)
            seen.add(example.question)
            seen.add(asked.question)
            said.add(example)
            counts[example.kind] += 1
            yield asked

    training = RowsOnDisk(chosen(), Example, folder)
    wanted = {
        kind: max(MIN_EVALUATION_PER_KIND, round(counts[kind] * spec.evaluation / (1 - spec.evaluation)))
        for kind in drafts
    }

    def asked_of(side: str, piles: Mapping[ExampleKind, Iterable[Card]]) -> Sequence[Example]:
        fresh = {
            kind: _distinct(
                f"{side} {kind.value}", kind, _fresh(cards, seen, wanted[kind], left_out), shelf, left_out
            )
            for kind, cards in piles.items()
        }
        rows = (shelf.example(card) for card in _mixed(fresh, shares, Counter(), keep_all=True))
        mistyped = (with_typos([row], typo_share, spec.seed, seen)[0] for row in rows)
        return RowsOnDisk(mistyped, Example, folder)

    evaluation = asked_of(
        "evaluation",
        {
            kind: _taught_well(kind, shelf.cards(f"asked {kind.value}"), shelf, said, left_out)
            for kind in drafts
        },
    )
    transfer = asked_of("transfer", {kind: shelf.cards(f"strange {kind.value}") for kind in untaught or {}})
    return Split(
        training,
        evaluation,
        {reason: number for reason, number in sorted(left_out.items()) if number},
        transfer,
        len(shelf),
    )


class _Questions(Container[str]):
    """Questions that are taught, by what is left of them once they are normalised."""

    def __init__(self, shelf: DraftsOnDisk) -> None:
        self._shelf = shelf

    def add(self, question: str) -> None:
        self._shelf.is_new("taught questions", question_hash(question))

    def __contains__(self, normalised_question: object) -> bool:
        return self._shelf.holds("taught questions", hash_of(str(normalised_question)))

    def holds(self, card: Card) -> bool:
        return self._shelf.holds("taught questions", card.question)


class _Said:
    """In how many wordings each fact is taught."""

    def __init__(self, shelf: DraftsOnDisk) -> None:
        self._shelf = shelf
        self._wordings: Counter[int] = Counter()

    def add(self, example: Example) -> None:
        fact = _fact(example)
        if self._shelf.is_new("wordings", hash_of(f"{fact} {question_hash(example.question)}")):
            self._wordings[fact] += 1

    def wordings(self, example: Example) -> int:
        """Of the fact that a question asks for."""
        return self._wordings[_fact(example)]


def _fact(example: Example) -> int:
    return hash_of(f"{example.document_url}\n{CITATION.sub('', example.answer)}")


def _fresh(cards: Iterable[Card], seen: _Questions, wanted: int, left_out: Counter[str]) -> Iterator[Card]:
    """The questions of one kind for one evaluation set: none that is taught, as many as are wanted."""
    taken = 0
    for card in cards:
        if seen.holds(card):
            left_out["question of the evaluation is also taught"] += 1
        elif taken == wanted:
            left_out["reserved phrasing beyond the evaluation's share"] += 1
        else:
            taken += 1
            yield card


def _taught_well(
    kind: ExampleKind, cards: Iterable[Card], shelf: DraftsOnDisk, said: _Said, left_out: Counter[str]
) -> Iterator[Card]:
    """The questions without those that ask by heart for a fact that is taught in fewer than MIN_WORDINGS wordings."""
    for card in cards:
        if kind in WITHOUT_SOURCES and said.wordings(shelf.example(card)) < MIN_WORDINGS:
            left_out["fact of the evaluation is hardly taught"] += 1
        else:
            yield card


def _distinct(
    side: str, kind: ExampleKind, cards: Iterable[Card], shelf: DraftsOnDisk, left_out: Counter[str]
) -> Iterator[Card]:
    """Within a kind, a prompt is taught once: two answers to one prompt teach neither.

    Of questions about the same sources in nearly the same words, one is enough: it is the reading that is learnt. What
    has to be known by heart is taught in every wording.
    """
    for card in cards:
        if not shelf.is_new(side, card.prompt):
            left_out["question is there already"] += 1
            continue
        if kind not in WITHOUT_SOURCES:
            row = shelf.example(card)
            place = hash_of("\x1f".join(what_is_asked_about(row)))
            if any(are_nearly_the_same(row.question, other) for other in shelf.kept(side, place)):
                left_out["question is there already in nearly the same words"] += 1
                continue
            shelf.keep(side, place, row.question)
        yield card


def _mixed(
    kinds: Mapping[ExampleKind, Iterator[Card]],
    wished: Mapping[ExampleKind, float],
    left_out: Counter[str],
    keep_all: bool = False,
) -> Iterator[Card]:
    """Kinds interleaved by their shares, until the kind with the largest share is used up; the rest is counted."""
    waiting = {kind: card for kind in sorted(kinds, key=str) if (card := next(kinds[kind], None)) is not None}
    leader = max(waiting, key=lambda kind: (wished[kind], kind.value), default=None)
    taken: Counter[ExampleKind] = Counter()
    while waiting and (keep_all or leader in waiting):
        kind = min(waiting, key=lambda kind: ((taken[kind] + 0.5) / wished[kind], kind.value))
        yield waiting[kind]
        taken[kind] += 1
        if (card := next(kinds[kind], None)) is not None:
            waiting[kind] = card
        else:
            del waiting[kind]
    left = len(waiting) + sum(1 for kind in waiting for _ in kinds[kind])
    left_out["kind has more than its share"] += left


def _capped(cards: Iterable[Card], max_per_document: int, left_out: Counter[str]) -> Iterator[Card]:
    counts: Counter[str] = Counter()
    for card in cards:
        counts[card.url] += 1
        if card.url and counts[card.url] > max_per_document:
            left_out["document has more than maxExamplesPerDocument"] += 1
        else:
            yield card
