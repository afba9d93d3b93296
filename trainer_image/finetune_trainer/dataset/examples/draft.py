"""An example on its way into the dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_contract.artifacts import Example
from finetune_contract.prompt import conversation
from finetune_contract.run_spec import ExampleKind
from finetune_contract.sections import Passage
from finetune_trainer.dataset.examples.phrasing import Phrasing


@dataclass(frozen=True)
class Draft:
    """An example, and what decides where it goes."""

    example: Example
    reserved: bool
    """Asked in words that training must not see."""
    round: int
    """How many examples of the same fact and kind come before it; a prefix of low rounds covers every fact."""
    family: str
    """Equal for examples with the same sources, which lie together: their prompts begin alike. Without sources, equal
    for one document: the wordings of a fact lie near each other."""


def stable_order(*parts: str) -> str:
    """A key that shuffles, and shuffles the same way on every machine."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def make_draft(
    kind: ExampleKind,
    document_url: str,
    phrasing: Phrasing,
    passages: Sequence[Passage],
    answer: str,
    must_contain: list[str],
    round_number: int,
    beside: str = "",
    history: Sequence[tuple[str, str]] = (),
) -> Draft:
    """A draft with its identity and its prompt as serving will render it.

    Args:
        beside: which other fact's sources are shown, when they are not those that search finds for the question.
        history: questions and answers that come before, oldest first.
    """
    identity = [kind.value, document_url, phrasing.template, phrasing.question, *([beside] if beside else [])]
    identity += [asked for asked, _ in history]
    example = Example(
        id=hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        kind=kind,
        document_url=document_url,
        template=phrasing.template,
        question=phrasing.question,
        prompt=conversation(history, phrasing.question, passages),
        answer=answer,
        must_contain=must_contain,
    )
    family = family_of(passages) or stable_order(document_url)
    return Draft(example, phrasing.reserved, round_number, family)


def family_of(passages: Sequence[Passage]) -> str:
    """The same for the same passages in any order; empty without passages."""
    return stable_order(*sorted(f"{p.url} {p.heading}" for p in passages)) if passages else ""


def in_one_order(passages: Sequence[Passage]) -> list[Passage]:
    """The passages in an order that tells nothing about which one holds the answer, and that is the same for every
    question about them: what their prompts have in common is then computed once."""
    family = family_of(passages)
    return sorted(passages, key=lambda passage: stable_order(family, passage.url, passage.heading))


def in_rounds(phrasings: Sequence[Phrasing], *identity: str) -> list[tuple[int, Phrasing]]:
    """Phrasings shuffled by the fact's identity, each with its round; reserved ones are counted for themselves."""
    ordered = sorted(phrasings, key=lambda phrasing: stable_order(*identity, phrasing.template))
    taught = [phrasing for phrasing in ordered if not phrasing.reserved]
    kept = [phrasing for phrasing in ordered if phrasing.reserved]
    return [*enumerate(taught), *enumerate(kept)]
