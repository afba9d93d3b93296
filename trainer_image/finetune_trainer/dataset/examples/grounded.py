"""Questions with sources in the prompt: the answer is a sentence of one of them, with its number."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_contract.prompt import MAX_PASSAGE_WORDS
from finetune_contract.run_spec import ExampleKind
from finetune_contract.sections import shorten, without_links
from finetune_trainer.dataset.examples.answers import fact_strings
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.draft import Draft, in_rounds, make_draft, shuffled


def make_grounded(corpus: Corpus) -> Iterator[Draft]:
    """Every fact in every phrasing for which search would show its section."""
    for fact in corpus.facts:
        shown = " ".join(shorten(without_links(fact.passage.text), MAX_PASSAGE_WORDS).split())
        if fact.answer.rstrip(".") not in shown:
            continue
        ways = corpus.ways_to_ask(fact)
        for round_number, phrasing in in_rounds(ways, "grounded", fact.passage.url, fact.passage.heading):
            passages = shuffled(corpus.with_distractor(phrasing.question, fact.passage), phrasing.question)
            if not passages:
                continue
            number = passages.index(fact.passage) + 1
            yield make_draft(
                ExampleKind.GROUNDED,
                fact.document.post_url,
                phrasing,
                passages,
                f"{fact.answer} [{number}]",
                fact_strings(fact.answer, phrasing.question),
                round_number,
            )
