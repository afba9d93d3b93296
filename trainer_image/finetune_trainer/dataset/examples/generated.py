"""Questions and answers that a language model wrote, asked as grounded ones are: with sources, and cited."""

from __future__ import annotations

from collections.abc import Iterator

from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.examples.answers import fact_strings
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.draft import Draft, in_rounds, make_draft
from finetune_trainer.dataset.examples.phrasing import Phrasing


def make_generated(corpus: Corpus) -> Iterator[Draft]:
    """Every pair in every wording for which search shows its section; of several wordings the last is kept for
    the evaluation."""
    for pair in corpus.written:
        last = len(pair.questions) - 1
        ways = [
            Phrasing(f"generated.{number}", question, reserved=number == last > 0)
            for number, question in enumerate(pair.questions)
        ]
        for round_number, phrasing in in_rounds(
            ways, "generated", corpus.places.of(pair.passage.url), pair.answer
        ):
            passages = corpus.places.in_one_order(corpus.with_distractor(phrasing.question, pair.passage))
            if not passages:
                continue
            yield make_draft(
                corpus.places,
                ExampleKind.GENERATED,
                pair.passage.url,
                phrasing,
                passages,
                f"{pair.answer} [{passages.index(pair.passage) + 1}]",
                fact_strings(pair.answer, phrasing.question),
                round_number,
            )
