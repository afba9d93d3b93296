"""From drafts to the two sides: what is taught, and what is asked to see whether it was learnt. Pure.

Evaluation asks about facts that were taught, in phrasings that were not. Both sides are ordered so that every
prefix is a good mixture: training may stop early, and evaluation may ask only the first questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Example
from finetune_contract.prompt import CITATION
from finetune_contract.run_spec import ExampleKind, SplitSpec
from finetune_trainer.dataset.examples import SHARES, WITHOUT_SOURCES
from finetune_trainer.dataset.examples.draft import Draft
from finetune_trainer.dataset.examples.duplicates import without_near_duplicates
from finetune_trainer.dataset.examples.phrasing import normalised
from finetune_trainer.dataset.examples.places import stable_order
from finetune_trainer.dataset.examples.typos import with_typos

MIN_EVALUATION_PER_KIND = 4
MIN_WORDINGS = 3
"""What has to be known by heart is taught in so many wordings before the next facts have their turn, and the evaluation
asks only for such facts: one that is said once is not learnt."""


@dataclass(frozen=True)
class Split:
    """The dataset's two sides, and how many drafts went into neither."""

    training: Sequence[Example]
    evaluation: Sequence[Example]
    left_out: Mapping[str, int]
    """Number of drafts by reason."""
    transfer: Sequence[Example] = ()
    """Questions about documents that training never sees."""


def split_examples(
    drafts: Mapping[ExampleKind, Sequence[Draft]],
    spec: SplitSpec,
    max_per_document: int,
    *,
    untaught: Mapping[ExampleKind, Sequence[Draft]] | None = None,
    shares: Mapping[ExampleKind, float] = SHARES,
    typo_share: float = 0.0,
) -> Split:
    """Choose, mix and part the drafts; the same drafts and spec give the same sides in the same order.

    Args:
        drafts: about the documents that are taught.
        spec: how much is kept back.
        max_per_document: training examples.
        untaught: about the documents that are not taught, in reserved phrasings.
        shares: how the kinds mix.
        typo_share: share of the questions that are asked with typing mistakes.
    """
    left_out: Counter[str] = Counter()
    taught = {
        kind: _ordered(
            rows, spec.seed, reserved=False, at_once=MIN_WORDINGS if kind in WITHOUT_SOURCES else 1
        )
        for kind, rows in drafts.items()
    }
    asked = {kind: _ordered(rows, spec.seed, reserved=True) for kind, rows in drafts.items()}
    mixed = _mixed(_distinct(taught, left_out), shares, left_out)
    chosen = _capped(mixed, max_per_document, left_out)
    training = with_typos(chosen, typo_share, spec.seed)

    seen = {normalised(example.question) for example in (*chosen, *training)}
    counts = Counter(example.kind for example in training)
    wanted = {
        kind: max(MIN_EVALUATION_PER_KIND, round(counts[kind] * spec.evaluation / (1 - spec.evaluation)))
        for kind in drafts
    }
    strange = {kind: _ordered(rows, spec.seed, reserved=True) for kind, rows in (untaught or {}).items()}
    known = {kind: _taught_well(rows, chosen, left_out) for kind, rows in asked.items()}
    evaluation = _fresh(known, seen, wanted, shares, left_out)
    transfer = _fresh(strange, seen, wanted, shares, left_out)
    return Split(
        tuple(training),
        tuple(with_typos(evaluation, typo_share, spec.seed, seen)),
        {reason: number for reason, number in sorted(left_out.items()) if number},
        tuple(with_typos(transfer, typo_share, spec.seed, seen)),
    )


def _fresh(
    kinds: Mapping[ExampleKind, Sequence[Example]],
    seen: Collection[str],
    wanted: Mapping[ExampleKind, int],
    shares: Mapping[ExampleKind, float],
    left_out: Counter[str],
) -> list[Example]:
    """The questions for one evaluation set: none that is taught, as many of each kind as are wanted."""
    chosen: dict[ExampleKind, list[Example]] = {}
    for kind, rows in kinds.items():
        fresh = [row for row in rows if normalised(row.question) not in seen]
        left_out["question of the evaluation is also taught"] += len(rows) - len(fresh)
        chosen[kind] = fresh[: wanted[kind]]
        left_out["reserved phrasing beyond the evaluation's share"] += max(0, len(fresh) - wanted[kind])
    return _mixed(_distinct(chosen, left_out), shares, Counter(), keep_all=True)


def _taught_well(
    asked: Sequence[Example], taught: Sequence[Example], left_out: Counter[str]
) -> list[Example]:
    """The questions without those that ask by heart for a fact that is taught in fewer than MIN_WORDINGS wordings."""
    said = {(_fact(row), normalised(row.question)) for row in taught}
    wordings = Counter(fact for fact, _ in said)
    known = [row for row in asked if row.kind not in WITHOUT_SOURCES or wordings[_fact(row)] >= MIN_WORDINGS]
    left_out["fact of the evaluation is hardly taught"] += len(asked) - len(known)
    return known


def _fact(example: Example) -> tuple[str, str]:
    return example.document_url, CITATION.sub("", example.answer)


def _ordered(drafts: Sequence[Draft], seed: int, reserved: bool, at_once: int = 1) -> list[Example]:
    """Round by round, shuffled inside a round by a hash that does not move when other documents change.

    Families stay together, in the same order in every kind: questions about the same sources are trained together.

    Args:
        drafts: of one kind.
        seed: of the split.
        reserved: which of them.
        at_once: rounds that are taken as one.
    """
    chosen = [draft for draft in drafts if draft.reserved == reserved]
    chosen.sort(
        key=lambda draft: (draft.round // at_once, stable_order(str(seed), draft.family), draft.example.id)
    )
    return [draft.example for draft in chosen]


def _distinct(
    kinds: Mapping[ExampleKind, Sequence[Example]], left_out: Counter[str]
) -> dict[ExampleKind, list[Example]]:
    """Within a kind, a prompt is taught once: two answers to one prompt teach neither.

    Of questions about the same sources in nearly the same words, one is enough: it is the reading that is learnt. What
    has to be known by heart is taught in every wording.
    """
    result: dict[ExampleKind, list[Example]] = {}
    for kind, rows in kinds.items():
        seen: set[str] = set()
        distinct: list[Example] = []
        for row in rows:
            prompt = normalised("\n".join(message.content for message in row.prompt))
            if prompt in seen:
                left_out["question is there already"] += 1
            else:
                seen.add(prompt)
                distinct.append(row)
        result[kind] = distinct
        if kind not in WITHOUT_SOURCES:
            result[kind], alike = without_near_duplicates(distinct)
            left_out["question is there already in nearly the same words"] += alike
    return result


def _mixed(
    kinds: Mapping[ExampleKind, Sequence[Example]],
    wished: Mapping[ExampleKind, float],
    left_out: Counter[str],
    keep_all: bool = False,
) -> list[Example]:
    """Kinds interleaved by their shares, until the kind with the largest share is used up."""
    shares = {kind: wished[kind] for kind in sorted(kinds, key=str) if kinds[kind]}
    if not shares:
        return []
    leader = max(shares, key=lambda kind: (shares[kind], kind.value))
    taken: Counter[ExampleKind] = Counter()
    mixed: list[Example] = []
    while True:
        waiting = [kind for kind in shares if taken[kind] < len(kinds[kind])]
        if not waiting or (leader not in waiting and not keep_all):
            break
        kind = min(waiting, key=lambda kind: ((taken[kind] + 0.5) / shares[kind], kind.value))
        mixed.append(kinds[kind][taken[kind]])
        taken[kind] += 1
    left_out["kind has more than its share"] += sum(len(kinds[kind]) - taken[kind] for kind in shares)
    return mixed


def _capped(rows: Sequence[Example], max_per_document: int, left_out: Counter[str]) -> list[Example]:
    counts: Counter[str] = Counter()
    kept: list[Example] = []
    for row in rows:
        counts[row.document_url] += 1
        if row.document_url and counts[row.document_url] > max_per_document:
            left_out["document has more than maxExamplesPerDocument"] += 1
        else:
            kept.append(row)
    return kept
