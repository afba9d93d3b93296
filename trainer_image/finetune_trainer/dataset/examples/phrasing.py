"""The same question in other words. Rules on the form of an English heading; what fits no rule gets a plain frame.

Some phrasings are reserved: training never uses their template, so that evaluation asks in words that were not taught.
Pure text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from finetune_trainer.dataset.examples.question_forms import (
    CASE,
    CASE_FRAMES,
    CLAUSE,
    CLAUSE_FRAMES,
    KEYWORD_FORM,
    MEASURE,
    MEASURE_FRAMES,
    QUESTION_FRAMES,
    QUESTION_RULES,
    RESERVED_CASE_FRAMES,
    RESERVED_CLAUSE_FRAMES,
    RESERVED_MEASURE_FRAMES,
    RESERVED_QUESTION_FRAMES,
    RESERVED_TOPIC_FRAMES,
    TOPIC_FRAMES,
)


@dataclass(frozen=True, slots=True)
class Phrasing:
    """One way to ask."""

    template: str
    """Name of the rule; the same for every question that it makes."""
    question: str
    reserved: bool = False
    """Only for evaluation."""
    from_answer: bool = False
    """Made from the sentence that answers it, and not from the heading."""


MIN_TAUGHT = 8
"""Questions with fewer forms of their own are put into frames as well."""
_FUNCTION_WORDS = frozenset(
    "a an the is are was were be do does did can could may will would should must has have had i you we they he she it"  # noqa: SIM905
    " what who when where which why how much many long old often of at to for in on with from by and or there any your"
    " our my me us this that called mean".split()
)
_WORD = re.compile(r"\w+")
MIN_KEYWORDS, MAX_KEYWORDS = 2, 6
"""One word is no question, and nobody types a whole headline into a search box."""


def phrasings(heading: str, as_topic: Callable[[str], str]) -> list[Phrasing]:
    """Every way to ask for what stands under a heading, each once.

    `as_topic` turns a heading that is no question into words that stand inside a sentence.
    """
    heading = " ".join(heading.split()).rstrip(" .:…!")
    found: dict[str, Phrasing] = {}

    def add(name: str, forms: tuple[str, ...], reserved: bool, fill: Callable[[str], str]) -> None:
        for number, form in enumerate(forms):
            question = " ".join(fill(form).split())
            if not form[:1].islower() and form != KEYWORD_FORM:
                question = question[:1].upper() + question[1:]
            template = f"{name}.{'reserved-' if reserved else ''}{number}"
            found.setdefault(normalised(question), Phrasing(template, question, reserved))

    keywords = _keywords(heading)
    if heading.endswith("?"):
        lowered = heading[0].lower() + heading[1:]
        in_frame = lambda form: form.replace("{Q}", heading).replace("{q}", lowered)  # noqa: E731
        add("heading", ("{Q}",), False, in_frame)
        if MIN_KEYWORDS <= len(keywords) <= MAX_KEYWORDS:
            add("keywords", (KEYWORD_FORM,), False, lambda form: form.replace("{k}", " ".join(keywords)))
        for rule in QUESTION_RULES:
            if match := rule.pattern.match(heading):
                groups = {str(number): group or "" for number, group in enumerate(match.groups(), start=1)}
                in_rule = lambda form, groups=groups: re.sub(r"\{(\d)\}", lambda m: groups[m.group(1)], form)  # noqa: E731
                add(rule.name, rule.forms, False, in_rule)
                add(rule.name, rule.reserved, True, in_rule)
                break
        taught = sum(not phrasing.reserved for phrasing in found.values())
        has_reserved = len(found) > taught
        add("frame", QUESTION_FRAMES[: max(0, MIN_TAUGHT - taught)], False, in_frame)
        if not has_reserved:
            add("frame", RESERVED_QUESTION_FRAMES, True, in_frame)
        return list(found.values())

    topic = as_topic(heading)
    name, forms, reserved = _frames_for(heading)
    if name == "measure":
        bare = re.sub(r"^the ", "", topic, flags=re.I)
        head = bare.partition(" of ")[0].partition(" in ")[0].partition(" for ")[0]
        verb = "are" if head.endswith("s") else "is"
        topic_form = lambda form: form.replace("{is}", verb).replace("{the}", "the").replace("{q}", bare)  # noqa: E731
    else:
        topic_form = lambda form: form.replace("{q}", topic)  # noqa: E731
    add(name, forms, False, topic_form)
    if MIN_KEYWORDS <= len(keywords) <= MAX_KEYWORDS and name != "measure":
        add("keywords", (KEYWORD_FORM,), False, lambda form: form.replace("{k}", " ".join(keywords)))
    add(name, reserved, True, topic_form)
    return list(found.values())


def normalised(question: str) -> str:
    """What makes two questions the same: their words, without case and punctuation."""
    return " ".join(_WORD.findall(question.lower()))


def _keywords(heading: str) -> list[str]:
    """The words of a heading that carry its meaning, as somebody types them who writes no sentence."""
    words = [word.strip("“”\"',;:?!.()") for word in heading.split()]
    kept = [word for word in words if word and word.lower() not in _FUNCTION_WORDS]
    is_name = len(kept) > 1 and kept[1][:1].isupper() and not kept[0].endswith("ing")
    return [
        word.lower() if not place and not is_name and word[1:] == word[1:].lower() else word
        for place, word in enumerate(kept)
    ]


def _frames_for(heading: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    if CASE.match(heading):
        return "case", CASE_FRAMES, RESERVED_CASE_FRAMES
    if CLAUSE.match(heading):
        return "clause", CLAUSE_FRAMES, RESERVED_CLAUSE_FRAMES
    if MEASURE.match(heading):
        return "measure", MEASURE_FRAMES, RESERVED_MEASURE_FRAMES
    return "topic", TOPIC_FRAMES, RESERVED_TOPIC_FRAMES
