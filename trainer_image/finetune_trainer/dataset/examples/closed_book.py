"""Questions without sources: what the model should know by heart."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.examples.answers import fact_strings
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.draft import Draft, in_rounds, make_draft


def make_closed_book(corpus: Corpus) -> Iterator[Draft]:
    """Every fact in every phrasing that leads search to it and to no other document: the question stands for itself."""
    for fact in corpus.facts:
        if not corpus.is_told_apart_by(fact.passage.heading or fact.passage.title, fact.passage.url):
            continue
        ways = corpus.ways_to_ask(fact)
        for round_number, phrasing in in_rounds(
            ways, "closed_book", corpus.places.of(fact.passage.url), fact.passage.heading
        ):
            if not corpus.with_distractor(phrasing.question, fact.passage):
                continue
            yield make_draft(
                corpus.places,
                ExampleKind.CLOSED_BOOK,
                fact.url,
                phrasing,
                (),
                fact.answer,
                fact_strings(fact.answer, phrasing.question),
                round_number,
            )
