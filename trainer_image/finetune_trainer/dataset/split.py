"""From drafts to the two sides: what is taught, and what is asked to see whether it was learnt. Pure.

Evaluation asks about facts that were taught, in phrasings that were not. Both sides are ordered so that every
prefix is a good mixture: training may stop early, and evaluation may ask only the first questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Example
from finetune_contract.run_spec import ExampleKind, SplitSpec
from finetune_trainer.dataset.examples import SHARES
from finetune_trainer.dataset.examples.draft import Draft, stable_order
from finetune_trainer.dataset.examples.phrasing import normalised

MIN_EVALUATION_PER_KIND = 4


@dataclass(frozen=True)
class Split:
    """The dataset's two sides, and how many drafts went into neither."""

    training: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    left_out: Mapping[str, int]
    """Number of drafts by reason."""
    transfer: tuple[Example, ...] = ()
    """Questions about documents that training never sees."""
    warnings: tuple[str, ...] = ()
    """What a person should know before training on this."""


def split_examples(
    drafts: Mapping[ExampleKind, Sequence[Draft]], spec: SplitSpec, max_per_document: int
) -> Split:
    """Choose, mix and part the drafts; the same drafts and spec give the same sides in the same order."""
    left_out: Counter[str] = Counter()
    taught = {kind: _ordered(rows, spec.seed, reserved=False) for kind, rows in drafts.items()}
    asked = {kind: _ordered(rows, spec.seed, reserved=True) for kind, rows in drafts.items()}
    training = _capped(_mixed(_distinct(taught, left_out), left_out), max_per_document, left_out)

    seen = {normalised(example.question) for example in training}
    counts = Counter(example.kind for example in training)
    evaluation: dict[ExampleKind, list[Example]] = {}
    for kind, rows in asked.items():
        fresh = [row for row in rows if normalised(row.question) not in seen]
        left_out["question of the evaluation is also taught"] += len(rows) - len(fresh)
        wanted = max(MIN_EVALUATION_PER_KIND, round(counts[kind] * spec.evaluation / (1 - spec.evaluation)))
        evaluation[kind] = fresh[:wanted]
        left_out["reserved phrasing beyond the evaluation's share"] += max(0, len(fresh) - wanted)
    mixed = _mixed(_distinct(evaluation, left_out), Counter(), keep_all=True)
    return Split(
        tuple(training),
        tuple(mixed),
        {reason: number for reason, number in sorted(left_out.items()) if number},
    )


def _ordered(drafts: Sequence[Draft], seed: int, reserved: bool) -> list[Example]:
    """Round by round, shuffled inside a round by a hash that does not move when other documents change.

    Families stay together, in the same order in every kind: questions about the same sources are trained together.
    """
    chosen = [draft for draft in drafts if draft.reserved == reserved]
    chosen.sort(key=lambda draft: (draft.round, stable_order(str(seed), draft.family), draft.example.id))
    return [draft.example for draft in chosen]


def _distinct(
    kinds: Mapping[ExampleKind, Sequence[Example]], left_out: Counter[str]
) -> dict[ExampleKind, list[Example]]:
    """Within a kind, a prompt is taught once: two answers to one prompt teach neither."""
    result: dict[ExampleKind, list[Example]] = {}
    for kind, rows in kinds.items():
        seen: set[str] = set()
        result[kind] = []
        for row in rows:
            prompt = normalised(row.prompt[-1].content)
            if prompt in seen:
                left_out["question is there already"] += 1
            else:
                seen.add(prompt)
                result[kind].append(row)
    return result


def _mixed(
    kinds: Mapping[ExampleKind, Sequence[Example]], left_out: Counter[str], keep_all: bool = False
) -> list[Example]:
    """Kinds interleaved by their shares, until the kind with the largest share is used up."""
    shares = {kind: SHARES[kind] for kind in sorted(kinds, key=str) if kinds[kind]}
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
