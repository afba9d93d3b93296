"""The same question in other words. Rules on the form of an English heading; what fits no rule gets a plain frame.

Some phrasings are reserved: training never uses their template, so that evaluation asks in words that were not taught.
Pure text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Phrasing:
    """One way to ask."""

    template: str
    """Name of the rule; the same for every question that it makes."""
    question: str
    reserved: bool = False
    """Only for evaluation."""


@dataclass(frozen=True)
class Rule:
    """Headings that match `pattern` can be asked in these forms, with `{1}` for the pattern's first group."""

    name: str
    pattern: re.Pattern[str]
    forms: tuple[str, ...]
    reserved: tuple[str, ...]


def _rule(name: str, pattern: str, forms: tuple[str, ...], reserved: tuple[str, ...]) -> Rule:
    return Rule(name, re.compile(rf"^{pattern}\?$"), forms, reserved)


QUESTION_RULES = (
    _rule(
        "cost",
        r"(?:What|How much) (does|do|did) (.+?) cost( .+)?",
        (
            "How much {1} {2} cost{3}?",
            "What is the price of {2}{3}?",
            "What must I pay for {2}{3}?",
            "How much is {2}{3}?",
        ),
        ("What is the charge for {2}{3}?", "What sum do I pay for {2}{3}?"),
    ),
    _rule(
        "called",
        r"What (?:is|are) (.+) called",
        ("What is the name of {1}?", "Which name does {1} have?", "Tell me the name of {1}."),
        ("By what name is {1} known?", "Do you know the name of {1}?"),
    ),
    _rule(
        "what-is",
        r"What (is|are|was|were) ((?:the|a|an|our|your) .+|[A-Z].+)",
        (
            "Can you tell me what {2} {1}?",
            "I would like to know what {2} {1}.",
            "Tell me what {2} {1}.",
            "Do you know what {2} {1}?",
        ),
        ("Could you explain what {2} {1}?", "Please say what {2} {1}."),
    ),
    _rule(
        "mean",
        r"What does (.+) mean",
        ("What is meant by {1}?", "What is {1}?", "Explain {1}.", "Can you explain {1}?"),
        ("What is the meaning of {1}?", "How should I understand {1}?"),
    ),
    _rule(
        "who",
        r"Who (.+)",
        (
            "Can you tell me who {1}?",
            "Do you know who {1}?",
            "I would like to know who {1}.",
            "Which person {1}?",
        ),
        ("What is the name of the one who {1}?", "Who is it that {1}?"),
    ),
    _rule(
        "when",
        r"When (.+)",
        (
            "At what time {1}?",
            "When exactly {1}?",
            "On which day or at what time {1}?",
            "I would like to know: when {1}?",
        ),
        ("At which hour {1}?", "Around when {1}?"),
    ),
    _rule(
        "where-is",
        r"Where (?:is|are) (.+)",
        (
            "Where do I find {1}?",
            "Where can I find {1}?",
            "In which place do I find {1}?",
            "How do I find {1}?",
        ),
        ("At what place will I find {1}?", "Where should I look for {1}?"),
    ),
    _rule(
        "where",
        r"Where (.+)",
        ("At which place {1}?", "Where exactly {1}?", "In what place {1}?"),
        ("Whereabouts {1}?", "What is the place where {1}?"),
    ),
    _rule(
        "how-many",
        r"How many (.+)",
        (
            "What number of {1}?",
            "How many {1} in all?",
            "Do you know how many {1}?",
            "I would like to know how many {1}.",
        ),
        ("Just how many {1}?", "Can you give me the number: how many {1}?"),
    ),
    _rule(
        "how-long",
        r"How long (.+)",
        (
            "For how long {1}?",
            "Roughly how long {1}?",
            "Do you know how long {1}?",
            "I would like to know how long {1}.",
        ),
        ("For what time {1}?", "Just how long {1}?"),
    ),
    _rule(
        "how-old",
        r"How old (is|are) (.+)",
        ("What is the age of {2}?", "Since when has there been {2}?", "From which year is {2}?"),
        ("What age does {2} have?", "How many years old {1} {2}?"),
    ),
    _rule(
        "how-often",
        r"How often (.+)",
        ("How frequently {1}?", "At what intervals {1}?", "How many times {1}?"),
        ("How regularly {1}?", "After how much time {1} again?"),
    ),
    _rule(
        "how-large",
        r"How (?:big|large|wide|deep|high|tall) (is|are) (.+)",
        ("What size {1} {2}?", "What are the measurements of {2}?", "What is the size of {2}?"),
        ("What dimensions does {2} have?", "Can you give me the size of {2}?"),
    ),
    _rule(
        "how-do-i",
        r"How (do|can|should) (I|we|you) (.+)",
        ("How can {2} {3}?", "What must {2} do to {3}?", "What is the way to {3}?", "I want to {3}. How?"),
        ("What steps are needed to {3}?", "How does one {3}?"),
    ),
    _rule(
        "how",
        r"How (.+)",
        ("In what way {1}?", "How exactly {1}?", "By what means {1}?"),
        ("In which manner {1}?", "Could you explain how {1}?"),
    ),
    _rule(
        "can-i",
        r"Can (I|we) (.+)",
        (
            "Is it possible to {2}?",
            "May {1} {2}?",
            "Could {1} {2}?",
            "{1} would like to {2}. Is that possible?",
        ),
        ("Would it be possible to {2}?", "Is there a way to {2}?"),
    ),
    _rule(
        "can-be",
        r"Can (.+?) be (.+)",
        ("Is it possible that {1} can be {2}?", "Could {1} be {2}?", "May {1} be {2}?"),
        ("Would it be possible for {1} to be {2}?", "Is there a way for {1} to be {2}?"),
    ),
    _rule(
        "is-there",
        r"(?:Is|Are) there (.+)",
        ("Do you have {1}?", "Will I find {1}?", "Is {1} available?"),
        ("Can I expect {1}?", "Does one find {1}?"),
    ),
    _rule(
        "do-you",
        r"Do you (.+)",
        ("Do you {1} there?", "Is it true that you {1}?", "Would you {1}?"),
        ("Can it be that you {1}?", "Do you happen to {1}?"),
    ),
    _rule(
        "why",
        r"Why (.+)",
        ("For what reason {1}?", "Do you know why {1}?", "Why exactly {1}?", "Can you tell me why {1}?"),
        ("What is the reason: why {1}?", "I wonder why {1}."),
    ),
    _rule(
        "which",
        r"Which (.+)",
        (
            "What {1}?",
            "Do you know which {1}?",
            "Can you tell me which {1}?",
            "I would like to know which {1}.",
        ),
        ("Do you happen to know which {1}?", "Could you say which {1}?"),
    ),
)
QUESTION_FRAMES = (
    "Please tell me: {q}", "I have a question: {q}", "{Q} Thank you.", "Hello! {Q}", "I would like to know: {q}",
)  # fmt: skip
MIN_TAUGHT = 5

RESERVED_QUESTION_FRAMES = ("Can you help me with this: {q}", "Excuse me, {q}")

CLAUSE = re.compile(r"^(What|Why|How|Where|Which|Who) (?!is\b|are\b|do\b|does\b|can\b|did\b)")
CLAUSE_FRAMES = (
    "Tell me {q}.", "Can you tell me {q}?", "Do you know {q}?", "I would like to know {q}.", "Please explain {q}.",
)  # fmt: skip
RESERVED_CLAUSE_FRAMES = ("Could you say {q}?", "I wonder {q}.")
CASE = re.compile(r"^(?:If|When) ")
CASE_FRAMES = (
    "What happens {q}?", "What can I expect {q}?", "Tell me what happens {q}.", "Do you know what happens {q}?",
    "What is done {q}?",
)  # fmt: skip
RESERVED_CASE_FRAMES = ("What is the rule {q}?", "What follows {q}?")
MEASURE = re.compile(
    r"^(?:The )?(?:\w+ ){0,2}(?:cost|price|number|width|height|length|depth|speed|size|weight|age|name|date|time|life"
    r"|limit|licence|license|address|winner|prize|result|goal|address|horizon|shelf life|opening hours"
    r"|prices|names|dates|times|goals|hours|ingredients)\b",
    re.I,
)
_PLURAL = re.compile(r"(?:s)$")
MEASURE_FRAMES = (
    "What {is} {the} {q}?", "Tell me {the} {q}.", "Can you tell me {the} {q}?", "Do you know {the} {q}?",
    "I would like to know {the} {q}.",
)  # fmt: skip
RESERVED_MEASURE_FRAMES = ("Could you give me {the} {q}?", "I am looking for {the} {q}.")
TOPIC_FRAMES = (
    "Tell me about {q}.", "What should I know about {q}?", "What do you know about {q}?",
    "What can you tell me about {q}?", "I have a question about {q}.", "What about {q}?",
)  # fmt: skip
RESERVED_TOPIC_FRAMES = ("Is there anything to know about {q}?", "Please inform me about {q}.")


def phrasings(heading: str, as_topic: Callable[[str], str]) -> list[Phrasing]:
    """Every way to ask for what stands under a heading, each once.

    `as_topic` turns a heading that is no question into words that stand inside a sentence.
    """
    heading = " ".join(heading.split()).rstrip(" .:…!")
    found: dict[str, Phrasing] = {}

    def add(name: str, forms: tuple[str, ...], reserved: bool, fill: Callable[[str], str]) -> None:
        for number, form in enumerate(forms):
            question = " ".join(fill(form).split())
            question = question[:1].upper() + question[1:]
            template = f"{name}.{'reserved-' if reserved else ''}{number}"
            found.setdefault(normalised(question), Phrasing(template, question, reserved))

    if heading.endswith("?"):
        lowered = heading[0].lower() + heading[1:]
        in_frame = lambda form: form.replace("{Q}", heading).replace("{q}", lowered)  # noqa: E731
        add("heading", ("{Q}",), False, in_frame)
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
        verb = "are" if _PLURAL.search(head) else "is"
        topic_form = lambda form: form.replace("{is}", verb).replace("{the}", "the").replace("{q}", bare)  # noqa: E731
    else:
        topic_form = lambda form: form.replace("{q}", topic)  # noqa: E731
    add(name, forms, False, topic_form)
    add(name, reserved, True, topic_form)
    return list(found.values())


def normalised(question: str) -> str:
    """What makes two questions the same: their words, without case and punctuation."""
    return " ".join(re.findall(r"\w+", question.lower()))


def _frames_for(heading: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    if CASE.match(heading):
        return "case", CASE_FRAMES, RESERVED_CASE_FRAMES
    if CLAUSE.match(heading):
        return "clause", CLAUSE_FRAMES, RESERVED_CLAUSE_FRAMES
    if MEASURE.match(heading):
        return "measure", MEASURE_FRAMES, RESERVED_MEASURE_FRAMES
    return "topic", TOPIC_FRAMES, RESERVED_TOPIC_FRAMES
