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
from finetune_trainer.dataset.examples.corpus import Corpus, Fact
from finetune_trainer.dataset.examples.draft import Draft, in_rounds, make_draft
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
)
RESERVED_FORMS = ("How do I book the {t} at the {site}?", "Can you tell me the price of the {t}?")


def make_refusals(corpus: Corpus) -> Iterator[Draft]:
    """Both sorts, interleaved by round."""
    yield from _about_other_documents(corpus)
    yield from _about_foreign_topics(corpus)


def _about_other_documents(corpus: Corpus) -> Iterator[Draft]:
    for fact in corpus.facts:
        ways, place = corpus.ways_to_ask(fact), corpus.places.of(fact.passage.url)
        for round_number, shown_for in in_rounds(ways, "grounded", place, fact.passage.heading):
            found = corpus.search(shown_for.question, MAX_PASSAGES + 8)
            passages = corpus.places.in_one_order(found[:MAX_PASSAGES])
            if fact.passage not in passages:
                continue
            near = (corpus.fact_in(passage) for passage in found[MAX_PASSAGES:])
            asked = next((other for other in near if other and _is_untold(other, passages)), None)
            if asked is None:
                continue
            same_side = [way for way in corpus.ways_to_ask(asked) if way.reserved == shown_for.reserved]
            if same_side:
                yield make_draft(
                    corpus.places,
                    ExampleKind.REFUSAL,
                    asked.document.post_url,
                    same_side[round_number % len(same_side)],
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
        for phrasing in ways:
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
                0,  # few beside the other sort; spread over as many rounds they would hardly be seen
            )


def _filled(form: str, words: dict[str, str]) -> str:
    for name, value in words.items():
        form = form.replace(name, value)
    for vowel in "aeiou":
        form = form.replace(f" a {vowel}", f" an {vowel}")
    return form
