"""Questions with sources in the prompt: the answer is a sentence of one of them, with its number.

The two sources that search shows for a question are asked about in turn: which one holds the answer has to be read, for
nothing else tells.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from finetune_contract.run_spec import ExampleKind
from finetune_contract.sections import Passage
from finetune_trainer.dataset.examples.answers import fact_strings
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.draft import Draft, beside_way, in_rounds, make_draft
from finetune_trainer.dataset.examples.passages_on_disk import Fact
from finetune_trainer.dataset.examples.phrasing import Phrasing
from finetune_trainer.dataset.examples.places import Places


def make_grounded(corpus: Corpus) -> Iterator[Draft]:
    """Every fact in every phrasing for which search would show its section, then the fact of the section beside it.

    A section that lies beside many is asked about in a later round each time."""
    asked_beside: defaultdict[int, Counter[int]] = defaultdict(Counter)
    """For each round how often, by the number of the fact."""
    for fact in corpus.facts:
        if not corpus.shows(fact):
            continue
        ways, place = corpus.ways_to_ask(fact), corpus.places.of(fact.passage.url)
        for round_number, phrasing in in_rounds(ways, "grounded", place, fact.passage.heading):
            passages = corpus.places.in_one_order(corpus.with_distractor(phrasing.question, fact.passage))
            if not passages:
                continue
            yield _draft(corpus.places, fact, phrasing, passages, round_number)
            other = next((corpus.fact_in(passage) for passage in passages if passage != fact.passage), None)
            if other is None or not corpus.shows(other):
                continue
            way = beside_way(
                corpus.ways_to_ask(other), phrasing.reserved, round_number, place, phrasing.question
            )
            if way is not None:
                later = asked_beside[round_number][other.number]
                asked_beside[round_number][other.number] += 1
                yield _draft(
                    corpus.places,
                    other,
                    way,
                    passages,
                    round_number + later,
                    beside=f"{place} {phrasing.question}",
                )


def _draft(
    places: Places,
    fact: Fact,
    phrasing: Phrasing,
    passages: list[Passage],
    round_number: int,
    beside: str = "",
) -> Draft:
    return make_draft(
        places,
        ExampleKind.GROUNDED,
        fact.url,
        phrasing,
        passages,
        f"{fact.answer} [{passages.index(fact.passage) + 1}]",
        fact_strings(fact.answer, phrasing.question),
        round_number,
        beside,
    )
