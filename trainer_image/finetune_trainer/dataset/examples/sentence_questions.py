"""Questions that are made from the sentence which answers them: what readers ask who do not know the heading.

Rules on the form of an English sentence; most sentences fit none. A rule that is not sure of its grammar asks nothing.
Pure text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from finetune_trainer.dataset.examples.phrasing import Phrasing

_SUBJECT = r"(?P<s>(?:(?:The|A|An|Our|One|Each|Every|This) )?(?:[\w’'-]+ ){0,4}?[\w’'-]+)"
_NUMBER = (
    r"(?:about |some |up to |over |nearly |almost |exactly |at least |at most )?"
    r"(?:\d[\d,.]*|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|ninety)"
)
_THINGS = r"(?P<n>(?:[a-z]+ )?[a-z]{2,}s)\b(?<!across)"
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DONE = (
    r"(?P<p>(?:[a-z]{2,}ed|built|made|cut|begun|bought|chosen|drawn|found|given|held|kept|known|led|lost|made|paid|rebuilt"
    r"|run|sold|set|sent|shown|taken|taught|told|won|written|founded)(?: up| down| off| out)?)"
)
_PAST = {
    "found": "find", "had": "have", "cost": "cost", "held": "hold", "made": "make", "sold": "sell", "took": "take",
    "won": "win", "saw": "see", "gave": "give", "brought": "bring", "carried": "carry", "counted": "count",
    "planted": "plant", "served": "serve", "used": "use", "covered": "cover",
}  # fmt: skip
_NO_SUBJECT = re.compile(
    r"^(?:It|They|We|He|She|You|I|This|That|These|Those|There|Here|And|But|If|When|While|Although|Because|For|From|In|On"
    r"|At|By|With|Until|After|Before|Since|Both|Some|Most|All|Many|Few|More|Each of|One of|Please)\b"
    r"|\b(?:who|which|that|is|are|was|were|has|have|had|and|or|of)$"
)


@dataclass(frozen=True)
class _Rule:
    name: str
    pattern: re.Pattern[str]
    forms: tuple[str, ...]
    reserved: tuple[str, ...]


def _rule(name: str, pattern: str, forms: str, reserved: str) -> _Rule:
    """Forms with ` | ` between them; `{s}` is the subject inside a sentence, `{does}` and `{verb}` agree with it."""
    return _Rule(
        name, re.compile(f"^{_SUBJECT} {pattern}"), tuple(forms.split(" | ")), tuple(reserved.split(" | "))
    )


RULES = (
    _rule(
        "said-cost",
        r"(?P<v>costs?) [£$€]\d",
        "How much {does} {s} cost? | What {does} {s} cost? | how much money {does} {s} cost",
        "What does one pay for {s}?",
    ),
    _rule(
        "said-pay",
        r"(?P<v>pays?) [£$€]\d",
        "How much {does} {s} pay? | What does it cost for {s}? | how much {does} {s} pay to get in",
        "Which amount {does} {s} pay?",
    ),
    _rule(
        "said-number",
        rf"(?P<v>(?!(?:is|was|as|its|this|has been)\b)[a-z]+) {_NUMBER} {_THINGS}",
        "How many {n} {does} {s} {verb}? | Tell me how many {n} {s} {v}. | how many {n} {does} {s} {verb}",
        "Can you say how many {n} {s} {v}?",
    ),
    _rule(
        "said-measure",
        r"(?P<v>is|are|was|were) (?:[\w’'-]+ ){0,6}?\d[\d.,]* (?:centi|milli|kilo)?metres (?:in )?"
        r"(?P<n>diameter|height|length|width|depth|deep|high|long|wide|tall|across)\b",
        "How many metres or centimetres {v} {s}? | What size {v} {s}? | What {v} the measure of {s}?",
        "Which measurement does one give for {s}?",
    ),
    _rule(
        "said-when",
        rf"(?P<v>was|were) {_DONE} (?:[^.]*? )?(?:in|on) (?:\d{{1,2}} )?(?:(?:{_MONTH}) )?(?:\d{{4}}|{_MONTH})\b",
        "When {v} {s} {p}? | On what date or in which year {v} {s} {p}? | Do you know when {s} {v} {p}?",
        "Since when or on which day {v} {s} {p}?",
    ),
    _rule(
        "said-by",
        rf"(?P<v>is|are|was|were) {_DONE} (?:[^.,]*? )?by (?:(?:the|our|a) (?:[a-z]+ ){{1,3}})?"
        r"(?P<w>[A-Z][\w’'-]+ [A-Z])",
        "By whom {v} {s} {p}? | by whom exactly {v} {s} {p} | Tell me by whom {s} {v} {p}.",
        "Whom do we thank: by whom {v} {s} {p}?",
    ),
    _rule(
        "said-with",
        rf"(?P<v>is|are) {_DONE} (?:[^.,`]*? )?(?:by|with) (?:the command )?`",
        "With which command {v} {s} {p}? | Which command do I need so that {s} {v} {p}?"
        " | What do I type so that {s} {v} {p}?",
        "What is the command with which {s} {v} {p}?",
    ),
    _rule(
        "said-where",
        rf"(?P<v>is|are) {_DONE} (?P<w>in|at|beside|behind|near|inside|below) (?:the|a|an|our) ",
        "Where {v} {s} {p}? | In what place {v} {s} {p}? | Tell me where {s} {v} {p}.",
        "Do you know the place where {s} {v} {p}?",
    ),
    _rule(
        "said-time",
        r"(?P<v>runs?|opens?|starts?|begins?|leaves?|meets?|ends?|closes?) (?:[^.]*? )?\d{1,2}:\d{2}",
        "At what time {does} {s} {verb}? | When {does} {s} {verb}? | what time {does} {s} {verb}",
        "At which o’clock {does} {s} {verb}?",
    ),
    _rule(
        "said-is",
        r"(?P<v>is|are) (?:a|an|the|our) [a-z]",
        "What {v} {s}? | Explain what {s} {v}. | what do you know about {s}",
        "What kind of thing {v} {s}?",
    ),
    _rule(
        "said-became",
        rf"became (?P<n>[a-z][\w ’'A-Z-]*?) (?:in|on) (?:\d{{1,2}} )?(?:(?:{_MONTH}) )?\d{{4}}\b",
        "Who became {n}? | Who took over as {n}? | When did {s} become {n}? | who is {n} now",
        "Who started as {n}?",
    ),
)


def asked_of_sentence(sentence: str, in_sentence: Callable[[str], str]) -> list[Phrasing]:
    """Ways to ask for what a sentence says; none when it fits no rule.

    `in_sentence` gives a subject the case that it has inside a sentence.
    """
    for rule in RULES:
        match = rule.pattern.match(sentence)
        if match is None or _NO_SUBJECT.search(match["s"]):
            continue
        words = {key: value for key, value in match.groupdict().items() if value}
        agreed = _agreement(rule.name, words)
        if agreed is None:
            continue
        words |= agreed | {"s": in_sentence(words["s"])}
        return [
            Phrasing(f"{rule.name}.{mark}{number}", _filled(form, words), reserved, from_answer=True)
            for forms, mark, reserved in ((rule.forms, "", False), (rule.reserved, "reserved-", True))
            for number, form in enumerate(forms)
        ]
    return []


def _agreement(rule: str, words: dict[str, str]) -> dict[str, str] | None:
    """The helping verb and the plain form of the verb; nothing when the sentence is not understood."""
    verb = words.get("v", "")
    if verb == "cost" and words["s"].split()[0].endswith("ing"):
        return {"does": "did", "verb": verb}
    if verb in _PAST and verb != "cost":
        return {"does": "did", "verb": _PAST[verb]}
    if rule in ("said-number", "said-time", "said-cost", "said-pay"):
        plural = words["s"].endswith("s") and not words["s"].endswith("ss")
        if verb.endswith("s") and not plural:
            return {"does": "does", "verb": _lemma(verb)}
        if rule != "said-number" and plural and not verb.endswith("s"):
            return {"does": "do", "verb": verb}
        return None
    return {}


def _lemma(verb: str) -> str:
    if verb == "has":
        return "have"
    if verb.endswith("ies"):
        return verb[:-3] + "y"
    if verb.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
        return verb[:-2]
    return verb[:-1]


def _filled(form: str, words: dict[str, str]) -> str:
    question = re.sub(r"\{(\w+)\}", lambda match: words[match.group(1)], form)
    return question if form[:1].islower() else question[:1].upper() + question[1:]
