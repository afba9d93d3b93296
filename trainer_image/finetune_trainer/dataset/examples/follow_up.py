"""A second question that leans on the first: `And what does it cost?`, `What about vouchers?`

The first question and its answer stand before it as the chat shows them, and the sources are those that the chat finds
for a follow-up. What search would not find is not taught.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator

from finetune_contract.prompt import MAX_PASSAGES
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.examples.answers import fact_strings
from finetune_trainer.dataset.examples.corpus import NUMBERING, Corpus
from finetune_trainer.dataset.examples.draft import Draft, in_rounds, make_draft
from finetune_trainer.dataset.examples.passages_on_disk import Fact
from finetune_trainer.dataset.examples.phrasing import Phrasing

PRONOUN_FORMS = ("{Q}", "And {q}", "Thanks. {Q}", "And do you know this: {q}")
RESERVED_PRONOUN_FORMS = ("One more thing: {q}", "Good to know. {Q}")
QUESTION_FORMS = ("And {q}", "Thanks. {Q}", "And another question: {q}")
RESERVED_QUESTION_FORMS = ("One more thing: {q}", "Good to know. {Q}")
TOPIC_FORMS = ("And what about {t}?", "What about {t}?", "And {t}?", "Tell me about {t}, too.")
RESERVED_TOPIC_FORMS = ("How about {t}?", "And is there anything on {t}?")

_THING = re.compile(r"(?=\b((?:the|a|an|our) [a-z][\w’'-]*(?: [a-z][\w’'-]*){0,2}))")
_ACRONYM = re.compile(r"(?:I|\w*[A-Z]\w*[A-Z]\w*)\b")
_PLACE_BEFORE = re.compile(r"\b(?:at|in|inside) $")
_MAY_FOLLOW = re.compile(
    r"\?|[ ](?:is|are|was|were|be|do|does|did|can|will|has|have|had|cost|open|close|start|end|begin|happen|work|take"
    r"|use|come|go|run|need|mean|look|stand|say|on|in|at|for|to|with|from|by|as|when|where|if|and|or|built|made|called"
    r"|bought|used|written)\b"
)
"""What may stand behind a thing: else the words are part of a longer name, as in `the mill cat`."""


def make_follow_ups(corpus: Corpus) -> Iterator[Draft]:
    """After every fact the next one of its document."""
    places_of: dict[str, array[int]] = {}
    for place, fact in enumerate(corpus.facts):
        if corpus.shows(fact):
            places_of.setdefault(fact.url, array("I")).append(place)
    for places in places_of.values():
        if len(places) > 1:
            facts = [corpus.facts[place] for place in places]
            for first, second in zip(facts, [*facts[1:], facts[0]], strict=True):
                yield from _pairs(corpus, first, second)


def with_pronoun(first: str, second: str) -> str:
    """The second question with `it` or `there` for what both speak of; empty when nothing can be so replaced."""
    for match in _THING.finditer(second):
        words = match.group(1).split()
        for end in range(len(words), 1, -1):
            thing = " ".join(words[:end])
            rest = second[match.start() + len(thing) :]
            is_one = not thing.endswith("s") or thing.endswith("ss")
            if not is_one or not _MAY_FOLLOW.match(rest) or not re.search(rf"\b{re.escape(thing)}\b", first):
                continue
            before = second[: match.start()]
            if place := _PLACE_BEFORE.search(before):
                return f"{before[: place.start()]}there{rest}"
            return f"{before}it{rest}"
    return ""


def second_questions(corpus: Corpus, first_question: str, second: Fact) -> list[Phrasing]:
    """Ways to ask for the second fact once the first was asked for."""
    heading = " ".join((second.passage.heading or second.passage.title).split()).rstrip(" .:…!")
    heading = NUMBERING.sub("", heading)
    if not heading.endswith("?"):
        topic = corpus.as_topic(heading, second.passage.text)
        return _filled("topic", TOPIC_FORMS, RESERVED_TOPIC_FORMS, {"{t}": topic})
    asked = with_pronoun(first_question, heading)
    whole = asked or heading
    words = {"{Q}": whole, "{q}": whole if _ACRONYM.match(whole) else whole[:1].lower() + whole[1:]}
    if asked:
        return _filled("pronoun", PRONOUN_FORMS, RESERVED_PRONOUN_FORMS, words)
    return _filled("question", QUESTION_FORMS, RESERVED_QUESTION_FORMS, words)


def _pairs(corpus: Corpus, first: Fact, second: Fact) -> Iterator[Draft]:
    openings = [way.question for way in corpus.ways_to_ask(first) if not way.reserved]
    for number, opening in enumerate(openings):
        shown = corpus.places.in_one_order(corpus.with_distractor(opening, first.passage))
        if not shown:
            continue
        history = [(opening, f"{first.answer} [{shown.index(first.passage) + 1}]")]
        ways = in_rounds(
            second_questions(corpus, opening, second),
            "follow_up",
            corpus.places.of(second.passage.url),
            second.passage.heading,
        )
        taught = [way for _, way in ways if not way.reserved]
        kept = [way for _, way in ways if way.reserved]
        for way in (taught[number % len(taught)], *kept[number : number + 1]):
            passages = corpus.places.in_one_order(corpus.search_after(opening, way.question, MAX_PASSAGES))
            if second.passage in passages:
                yield make_draft(
                    corpus.places,
                    ExampleKind.FOLLOW_UP,
                    second.url,
                    way,
                    passages,
                    f"{second.answer} [{passages.index(second.passage) + 1}]",
                    fact_strings(second.answer, way.question),
                    number,
                    history=history,
                )


def _filled(
    name: str, taught: tuple[str, ...], reserved: tuple[str, ...], words: dict[str, str]
) -> list[Phrasing]:
    ways = []
    for forms, is_reserved in ((taught, False), (reserved, True)):
        for number, form in enumerate(forms):
            for mark, value in words.items():
                form = form.replace(mark, value)
            template = f"follow-up-{name}.{'reserved-' if is_reserved else ''}{number}"
            ways.append(Phrasing(template, form, is_reserved))
    return ways
