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
from finetune_trainer.dataset.examples.places import Places, stable_order


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


def make_draft(
    places: Places,
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
        places: of the site; the identity does not hang on where it is served.
        beside: which other fact's sources are shown, when they are not those that search finds for the question.
        history: questions and answers that come before, oldest first.
    """
    place = places.of(document_url)
    identity = [kind.value, place, phrasing.template, phrasing.question, *([beside] if beside else [])]
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
    family = places.family(passages) or stable_order(place)
    return Draft(example, phrasing.reserved, round_number, family)


def in_rounds(phrasings: Sequence[Phrasing], *identity: str) -> list[tuple[int, Phrasing]]:
    """Phrasings shuffled by the fact's identity, each with its round; reserved ones are counted for themselves.

    Those from the heading and those from the answer take turns.
    """
    ordered = sorted(phrasings, key=lambda phrasing: stable_order(*identity, phrasing.template))
    ordered = _in_turn(ordered)
    taught = [phrasing for phrasing in ordered if not phrasing.reserved]
    kept = [phrasing for phrasing in ordered if phrasing.reserved]
    return [*enumerate(taught), *enumerate(kept)]


def beside_way(ways: Sequence[Phrasing], reserved: bool, number: int, *identity: str) -> Phrasing | None:
    """One of the phrasings, another one for every number; nothing when there is none of this side."""
    same_side = [way for _, way in in_rounds(ways, "beside", *identity) if way.reserved == reserved]
    return same_side[number % len(same_side)] if same_side else None


def _in_turn(phrasings: Sequence[Phrasing]) -> list[Phrasing]:
    """Of either sort one after the other, beginning with that of the first one, until a sort is used up."""
    first_sort = phrasings[0].from_answer if phrasings else False
    sorts: dict[tuple[bool, bool], int] = {}
    places = []
    for phrasing in phrasings:
        sort = (phrasing.reserved, phrasing.from_answer)
        places.append((sorts.setdefault(sort, 0), phrasing.from_answer != first_sort))
        sorts[sort] += 1
    return [phrasing for _, phrasing in sorted(zip(places, phrasings, strict=True), key=lambda pair: pair[0])]
