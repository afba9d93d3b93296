"""Where something can be read: the model names the page and cites it; code turns the number into the link.

Beside each such question stands one about the same sources that does not ask for a page, and gets none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finetune_contract.artifacts import Document
from finetune_contract.prompt import MAX_PASSAGES
from finetune_contract.run_spec import ExampleKind
from finetune_contract.sections import Passage, content_words, split_sections
from finetune_trainer.dataset.examples.answers import fact_strings
from finetune_trainer.dataset.examples.corpus import Corpus, can_be_named
from finetune_trainer.dataset.examples.draft import Draft, beside_way, in_rounds, make_draft
from finetune_trainer.dataset.examples.phrasing import Phrasing

FORMS = (
    "Where can I read about {q}?",
    "Which page is about {q}?",
    "Is there a page about {q}?",
    "Do you have a link about {q}?",
    "Where do I find more about {q}?",
    "On which page can I read about {q}?",
)
MIN_TOPIC_WORDS = 2
"""That carry meaning, in a heading."""
RESERVED_FORMS = ("Can you point me to a page about {q}?", "Where does the site write about {q}?")


def make_url(corpus: Corpus) -> Iterator[Draft]:
    """Every document by its title and by its topic headings, where search shows it."""
    for document in filter(can_be_named, corpus.documents):
        for topic in _topics(corpus, document):
            asked = corpus.as_topic(topic, document.post_content)
            ways = [Phrasing(f"url.{n}", form.replace("{q}", asked)) for n, form in enumerate(FORMS)]
            ways += [
                Phrasing(f"url.reserved-{n}", form.replace("{q}", asked), reserved=True)
                for n, form in enumerate(RESERVED_FORMS)
            ]
            for round_number, phrasing in in_rounds(ways, "url", corpus.places.of(document.post_url), topic):
                passages = corpus.places.in_one_order(corpus.search(phrasing.question, MAX_PASSAGES))
                places = [
                    n for n, passage in enumerate(passages, start=1) if passage.url == document.post_url
                ]
                if not places:
                    continue
                yield make_draft(
                    corpus.places,
                    ExampleKind.URL,
                    document.post_url,
                    phrasing,
                    passages,
                    f"See “{document.post_title}” [{places[0]}].",
                    [document.post_title],
                    round_number,
                )
                yield from _without_page(corpus, passages, places[0] - 1, phrasing, round_number)


def _without_page(
    corpus: Corpus, passages: Sequence[Passage], place: int, beside: Phrasing, round_number: int
) -> Iterator[Draft]:
    fact = corpus.fact_in(passages[place])
    if fact is None or not corpus.shows(fact):
        return
    way = beside_way(corpus.ways_to_ask(fact), beside.reserved, round_number, beside.question)
    if way is not None:
        yield make_draft(
            corpus.places,
            ExampleKind.URL,
            fact.url,
            way,
            passages,
            f"{fact.answer} [{place + 1}]",
            fact_strings(fact.answer, way.question),
            round_number,
            beside=beside.question,
        )


def _topics(corpus: Corpus, document: Document) -> list[str]:
    """Title and headings that name a thing; questions are left to the other kinds. A heading such as `Conclusion` or
    `What to bring` says nothing without its page, and nobody asks for it."""
    headings = [
        section.heading
        for section in split_sections(document.post_content)
        if len(set(content_words(section.heading))) >= MIN_TOPIC_WORDS
        and corpus.is_told_apart_by(section.heading, document.post_url)
    ]
    names = [name.strip(" .:!") for name in (document.post_title, *headings)]
    return [
        name
        for name in dict.fromkeys(names)
        if name
        and not name.endswith("?")
        and name.split()[0] not in {"What", "Why", "How", "When", "Where", "If"}
    ]
