"""Questions that the sources in the prompt do not answer: the model says so, word for word.

Two sorts: a real question of the site with the sources of two other facts (the same sources with a question that they
do answer are grounded examples, so that refusing is no shortcut), and questions about things that the site does not
have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finetune_contract.prompt import MAX_PASSAGES, REFUSAL
from finetune_contract.run_spec import ExampleKind
from finetune_contract.sections import Passage
from finetune_trainer.dataset.examples.answers import fact_strings
from finetune_trainer.dataset.examples.corpus import Corpus
from finetune_trainer.dataset.examples.draft import Draft, beside_way, in_rounds, make_draft
from finetune_trainer.dataset.examples.passages_on_disk import Fact
from finetune_trainer.dataset.examples.phrasing import Phrasing

FOREIGN_TOPICS = (
    "bowling alley", "cinema", "ice rink", "cable car", "golf course", "camping site", "petrol station",
    "tennis court", "night club", "hairdresser", "zip line", "escape room", "planetarium", "aquarium", "public library",
    "car rental", "train museum", "ski lift", "karaoke evening", "pottery class", "dentist", "post office",
    "climbing wall", "laundry", "rose garden", "wine tasting", "pony ride", "sauna", "chess club", "mini golf course",
)  # fmt: skip
FORMS = (
    "Is there a {t} at the {site}?",
    "Does the {site} have a {t}?",
    "What does the {t} cost?",
    "When is the {t} open?",
    "Who runs the {t}?",
    "Where do I find the {t}?",
    "Which bus goes to the {t}?",
    "How much is an evening at the {t}?",
    "What do I pay for the {t}?",
    "I am looking for the {t} of the {site}.",
    "opening hours {t}",
    "Can I book the {t} for a day?",
    "Does the {t} of the {site} have a telephone number?",
    "Who won the prize of the {t} last week?",
)
FORMS_A_ROUND = 4
"""Of each thing: few beside the other sort; spread over as many rounds they would hardly be seen."""
RESERVED_FORMS = ("How do I book the {t} at the {site}?", "Can you tell me the price of the {t}?")


def make_refusals(corpus: Corpus) -> Iterator[Draft]:
    """Both sorts, interleaved by round."""
    yield from _about_other_documents(corpus)
    yield from _about_foreign_topics(corpus)


def _about_other_documents(corpus: Corpus) -> Iterator[Draft]:
    for fact in corpus.facts:
        ways, place = corpus.ways_to_ask(fact), corpus.places.of(fact.passage.url)
        for round_number, shown_for in in_rounds(ways, "grounded", place, fact.passage.heading):
            passages = corpus.places.in_one_order(corpus.search(shown_for.question, MAX_PASSAGES))
            if fact.passage not in passages:
                continue
            near = corpus.facts_beyond(shown_for.question, MAX_PASSAGES)
            asked = next((other for other in near if _is_untold(other, passages)), None)
            if asked is None:
                continue
            way = beside_way(
                corpus.ways_to_ask(asked), shown_for.reserved, round_number, place, shown_for.question
            )
            if way is not None:
                yield make_draft(
                    corpus.places,
                    ExampleKind.REFUSAL,
                    asked.url,
                    way,
                    passages,
                    REFUSAL,
                    [],
                    round_number,
                    beside=f"{place} {shown_for.question}",
                )


def _is_untold(fact: Fact, passages: Sequence[Passage]) -> bool:
    told = fact_strings(fact.answer, "")
    return bool(told) and not any(string in passage.text for string in told for passage in passages)


def _about_foreign_topics(corpus: Corpus) -> Iterator[Draft]:
    for topic in FOREIGN_TOPICS:
        if corpus.holds(topic):
            continue
        fill = {"{t}": topic, "{site}": corpus.site_noun}
        ways = [
            Phrasing(f"foreign.{'reserved-' if reserved else ''}{number}", _filled(form, fill), reserved)
            for forms, reserved in ((FORMS, False), (RESERVED_FORMS, True))
            for number, form in enumerate(forms)
        ]
        for place, phrasing in in_rounds(ways, "foreign", topic):
            passages = corpus.search(phrasing.question, MAX_PASSAGES)
            if not passages:
                continue
            yield make_draft(
                corpus.places,
                ExampleKind.REFUSAL,
                "",
                phrasing,
                corpus.places.in_one_order(passages),
                REFUSAL,
                [],
                place // FORMS_A_ROUND,
            )


def _filled(form: str, words: dict[str, str]) -> str:
    for name, value in words.items():
        form = form.replace(name, value)
    for vowel in "aeiou":
        form = form.replace(f" a {vowel}", f" an {vowel}")
    return form
