"""The forms in which readers ask, as tables: for headings that are questions, by how they begin, and for all others.

A form that begins with a small letter stays so, and some end without a question mark: readers type as they like.
Reserved forms are for evaluation alone. Data only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """What matches `pattern` can be asked in these forms, with `{1}` for the pattern's first group."""

    name: str
    pattern: re.Pattern[str]
    forms: tuple[str, ...]
    reserved: tuple[str, ...]


def _rule(name: str, pattern: str, forms: str, reserved: str) -> Rule:
    """Forms with ` | ` between them."""
    return Rule(name, re.compile(rf"^{pattern}\?$"), tuple(forms.split(" | ")), tuple(reserved.split(" | ")))


QUESTION_RULES = (
    _rule(
        "cost",
        r"(?:What|How much) (does|do|did) (.+?) cost( .+)?",
        "How much {1} {2} cost{3}? | What is the price of {2}{3}? | What must I pay for {2}{3}? | How much is {2}{3}?"
        " | price of {2}{3} | How much do I have to pay for {2}{3}? | I am interested in {2}{3}. How much is it?"
        " | how much for {2}{3}",
        "What is the charge for {2}{3}? | What sum do I pay for {2}{3}?",
    ),
    _rule(
        "called",
        r"What (?:is|are) (.+) called",
        "What is the name of {1}? | Which name does {1} have? | Tell me the name of {1}. | name of {1}"
        " | How do you call {1}? | I forgot the name of {1}.",
        "By what name is {1} known? | Do you know the name of {1}?",
    ),
    _rule(
        "number",
        r"What (?:is|was) (?:the|your) ((?:\w+ ){0,2}(?:number|address|price|password|name|date|port|size|fee) .+)",
        "Can you give me the {1}? | I need the {1}. | I am looking for the {1}. | {1} | Tell me the {1}.",
        "Could you give me the {1}? | I would like to have the {1}.",
    ),
    _rule(
        "what-is",
        r"What (is|are|was|were) ((?:the|a|an|our|your) .+|[A-Z].+)",
        "Can you tell me what {2} {1}? | I would like to know what {2} {1}. | Tell me what {2} {1}."
        " | Do you know what {2} {1}? | I do not know what {2} {1}. | what exactly {1} {2}",
        "Could you explain what {2} {1}? | Please say what {2} {1}.",
    ),
    _rule(
        "error",
        r"What does ((?:the )?(?:error|code|status|message|warning|alarm|light) .+) mean",
        "What is meant by {1}? | I see {1}. What is wrong? | I get {1}, what now?"
        " | It says {1}. What does that tell me? | Why do I get {1}? | my screen shows {1}"
        " | It reports {1}, what is the matter?",
        "What is the meaning of {1}? | How should I understand {1}?",
    ),
    _rule(
        "mean",
        r"What does (.+) mean",
        "What is meant by {1}? | What is {1}? | Explain {1}. | Can you explain {1}? | I read of {1}. What is it?"
        " | meaning of {1}",
        "What is the meaning of {1}? | How should I understand {1}?",
    ),
    _rule(
        "who",
        r"Who (.+)",
        "Can you tell me who {1}? | Do you know who {1}? | I would like to know who {1}. | Which person {1}?"
        " | Who is the person who {1}? | Name the person who {1}. | which man or woman {1}",
        "What is the name of the one who {1}? | Who is it that {1}?",
    ),
    _rule(
        "when",
        r"When (.+)",
        "At what time {1}? | When exactly {1}? | On which day or at what time {1}? | I would like to know: when {1}?"
        " | From when on {1}? | at which time {1} | On what date or at what hour {1}?",
        "At which hour {1}? | Around when {1}?",
    ),
    _rule(
        "where-is",
        r"Where (?:is|are) (.+)",
        "Where do I find {1}? | Where can I find {1}? | In which place do I find {1}? | How do I find {1}?"
        " | I cannot find {1}. | I am looking for {1}. Where do I go? | where to find {1}",
        "At what place will I find {1}? | Where should I look for {1}?",
    ),
    _rule(
        "where",
        r"Where (.+)",
        "At which place {1}? | Where exactly {1}? | In what place {1}? | Where is it that {1}? | in which place {1}",
        "Whereabouts {1}? | What is the place where {1}?",
    ),
    _rule(
        "how-many-do",
        r"How many (.+?) (does|do|did) (.+)",
        "What number of {1} {2} {3}? | How many {1} are there? | Give me the number of {1}. | number of {1}"
        " | How many {1} in all {2} {3}? | I am curious about the number of {1}.",
        "Just how many {1} {2} {3}? | Can you give me the number of {1}?",
    ),
    _rule(
        "how-many",
        r"How many (.+)",
        "What number of {1}? | How many {1} in all? | Do you know how many {1}? | I would like to know how many {1}."
        " | Give me a figure: how many {1}? | how many in all {1}",
        "Just how many {1}? | Can you give me the number: how many {1}?",
    ),
    _rule(
        "how-long",
        r"How long (.+)",
        "For how long {1}? | Roughly how long {1}? | Do you know how long {1}? | I would like to know how long {1}."
        " | For how many minutes, hours or days {1}? | How much time {1}? | how many hours {1}",
        "For what time {1}? | Just how long {1}?",
    ),
    _rule(
        "how-old",
        r"How old (is|are) (.+)",
        "What is the age of {2}? | Since when has there been {2}? | From which year is {2}?"
        " | When was the beginning of {2}? | age of {2} | From what year does {2} come?",
        "What age does {2} have? | How many years old {1} {2}?",
    ),
    _rule(
        "how-often",
        r"How often (.+)",
        "How frequently {1}? | At what intervals {1}? | How many times {1}? | After how many days or hours {1} again?"
        " | how many times {1} in a year",
        "How regularly {1}? | After how much time {1} again?",
    ),
    _rule(
        "how-large",
        r"How (?:big|large|wide|deep|high|tall) (is|are) (.+)",
        "What size {1} {2}? | What are the measurements of {2}? | What is the size of {2}? | How large {1} {2}?"
        " | size of {2} | How many metres does {2} measure? | What height, width or diameter does {2} have?",
        "What dimensions does {2} have? | Can you give me the size of {2}?",
    ),
    _rule(
        "how-do-i",
        r"How (do|can|should) (I|we|you) (.+)",
        "How can {2} {3}? | What must {2} do to {3}? | What is the way to {3}? | I want to {3}. How?"
        " | how to {3} | What do I need in order to {3}? | With what can I {3}?",
        "What steps are needed to {3}? | How does one {3}?",
    ),
    _rule(
        "how",
        r"How (.+)",
        "In what way {1}? | How exactly {1}? | By what means {1}? | What is it like: how {1}? | how {1} please",
        "In which manner {1}? | Could you explain how {1}?",
    ),
    _rule(
        "can-i",
        r"Can (I|we) (.+)",
        "Is it possible to {2}? | May {1} {2}? | Could {1} {2}? | {1} would like to {2}. Is that possible?"
        " | Am I allowed to {2}? | What are the rules if I want to {2}? | possible to {2}",
        "Would it be possible to {2}? | Is there a way to {2}?",
    ),
    _rule(
        "can-be",
        r"Can (.+?) be (.+)",
        "Is it possible that {1} can be {2}? | Could {1} be {2}? | May {1} be {2}? | Until when or how can {1} be {2}?"
        " | I would like {1} to be {2}. Is that possible?",
        "Would it be possible for {1} to be {2}? | Is there a way for {1} to be {2}?",
    ),
    _rule(
        "is-there",
        r"(?:Is|Are) there (.+)",
        "Do you have {1}? | Will I find {1}? | Is {1} available? | Can I get {1}? | I need {1}. Do you have that?"
        " | any {1}",
        "Can I expect {1}? | Does one find {1}?",
    ),
    _rule(
        "do-you",
        r"Do you (.+)",
        "Do you {1} there? | Is it true that you {1}? | Would you {1}? | I hope that you {1}. | you {1}, yes or no",
        "Can it be that you {1}? | Do you happen to {1}?",
    ),
    _rule(
        "why",
        r"Why (.+)",
        "For what reason {1}? | Do you know: why {1}? | Why exactly {1}? | Can you tell me this: why {1}?",
        "What is the reason: why {1}? | I wonder: why {1}?",
    ),
    _rule(
        "which-do",
        r"Which (.+?) (does|do|did) (.+)",
        "What {1} {2} {3}? | What kind of {1} {2} {3}? | I have to know this: which {1} {2} {3}?",
        "Do you happen to know: which {1} {2} {3}? | Could you say this: what {1} {2} {3}?",
    ),
    _rule(
        "which",
        r"Which (.+)",
        "What {1}? | Do you know which {1}? | Can you tell me which {1}? | I would like to know which {1}."
        " | I do not know which {1}. | what {1} please",
        "Do you happen to know which {1}? | Could you say which {1}?",
    ),
)
QUESTION_FRAMES = (
    "I am planning a visit. {Q}", "I have a question: {q}", "{Q} Thank you.", "Hello! {Q}", "My question is this: {q}",
    "Please tell me: {q}", "I would like to know: {q}",
)  # fmt: skip
RESERVED_QUESTION_FRAMES = ("Can you help me with this: {q}", "Excuse me, {q}")

CLAUSE = re.compile(r"^(What|Why|How|Where|Which|Who|When(?= to\b)) (?!is\b|are\b|do\b|does\b|can\b|did\b)")
CLAUSE_FRAMES = (
    "Tell me {q}.", "Can you tell me {q}?", "Do you know {q}?", "I would like to know {q}.", "Please explain {q}.",
    "I want to find out {q}.", "can someone say {q}",
)  # fmt: skip
RESERVED_CLAUSE_FRAMES = ("Could you say {q}?", "I wonder {q}.")
CASE = re.compile(r"^(?:If|When(?! to\b)) ")
CASE_FRAMES = (
    "What happens {q}?", "What can I expect {q}?", "Tell me what happens {q}.", "Do you know what happens {q}?",
    "What is done {q}?", "What do I do {q}?", "{q}, what then",
)  # fmt: skip
RESERVED_CASE_FRAMES = ("What is the rule {q}?", "What follows {q}?")
MEASURE = re.compile(
    r"^(?:The )?(?:\w+ ){0,2}(?:cost|price|number|width|height|length|depth|speed|size|weight|age|name|date|time|life"
    r"|limit|licence|license|address|winner|prize|result|goal|address|horizon|shelf life|opening hours"
    r"|prices|names|dates|times|goals|hours|ingredients)\b",
    re.I,
)
MEASURE_FRAMES = (
    "What {is} {the} {q}?", "Tell me {the} {q}.", "Can you tell me {the} {q}?", "Do you know {the} {q}?",
    "I would like to know {the} {q}.", "I need {the} {q}.", "{q}",
)  # fmt: skip
RESERVED_MEASURE_FRAMES = ("Could you give me {the} {q}?", "I am looking for {the} {q}.")
TOPIC_FRAMES = (
    "Tell me about {q}.", "What should I know about {q}?", "What do you know about {q}?",
    "What can you tell me about {q}?", "I have a question about {q}.", "What about {q}?", "How is it with {q}?",
    "I am interested in {q}.", "What does the site say about {q}?",
)  # fmt: skip
RESERVED_TOPIC_FRAMES = ("Is there anything to know about {q}?", "Please inform me about {q}.")
KEYWORD_FORM = "{k}"
"""Words without a sentence, as they are typed into a search box."""
