"""What a written pair must pass before it may teach: deterministic checks against the section's own words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from finetune_contract.prompt import CITATION, is_refusal
from finetune_contract.sections import Passage, content_words
from finetune_trainer.dataset.examples.answers import fact_strings
from finetune_trainer.dataset.examples.phrasing import normalised
from finetune_trainer.dataset.generator.language import is_same_language
from finetune_trainer.dataset.generator.wording import shown_text

MIN_GROUNDED_SHARE = 0.6
MIN_ANSWER_WORDS = 5
MIN_WORDS_WITH_FACT = 3
MAX_ANSWER_WORDS = 400
MIN_QUESTION_WORDS = 3
MAX_QUESTION_WORDS = 40
COPY_SHARE = 0.9
"""An answer of which this share of words stands in the question, and which adds no fact, repeats it."""

NOT_GROUNDED = "the section does not say what the answer says"
INVENTED = "a number, date or address is not in the section"
TOO_SHORT = "the answer is too short"
TOO_LONG = "the answer is too long"
COPY = "the answer repeats the question"
OTHER_LANGUAGE = "another language than the section's"
NO_QUESTION = "the question is no question of a reader"
SPEAKS_OF_TEXT = "it speaks of the text, which a reader does not see"
REFUSES = "the answer is a refusal"

_ADDRESS = re.compile(r"https?://[^\s<>\"')\]]+|www\.[^\s<>\"')\]]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.I)
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_SPELT = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    r"|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion"
    r"|january|february|march|april|june|july|august|september|october|november|december"
    r"|monday|tuesday|wednesday|thursday|friday|saturday|sunday)\b",
    re.I,
)
_OF_THE_TEXT = re.compile(
    r"\b(?:the|this|given|provided|above)\s+(?:\w+\s+)?(?:text|passage|section|context|excerpt|paragraph)\b"
    r"|\baccording to (?:the|this) (?:text|page|document|article|information)\b",
    re.I,
)


def question_fault(question: str, passage: Passage) -> str:
    """Why a question may not be taught; empty when it may."""
    words = question.split()
    if not MIN_QUESTION_WORDS <= len(words) <= MAX_QUESTION_WORDS or CITATION.search(question):
        return NO_QUESTION
    if _OF_THE_TEXT.search(question) and not _OF_THE_TEXT.search(shown_text(passage)):
        return SPEAKS_OF_TEXT
    if not is_same_language(question, _whole(passage)):
        return OTHER_LANGUAGE
    return INVENTED if _invented(question, _whole(passage)) else ""


def answer_fault(answer: str, question: str, passage: Passage) -> str:
    """Why an answer may not be taught; empty when it may."""
    source = _whole(passage)
    words = answer.split()
    if is_refusal(answer):
        return REFUSES
    if len(words) < MIN_ANSWER_WORDS and (
        len(words) < MIN_WORDS_WITH_FACT or not fact_strings(answer, question)
    ):
        return TOO_SHORT
    if len(words) > MAX_ANSWER_WORDS:
        return TOO_LONG
    if _repeats(answer, question):
        return COPY
    if _OF_THE_TEXT.search(answer) and not _OF_THE_TEXT.search(source):
        return SPEAKS_OF_TEXT
    if not is_same_language(answer, source):
        return OTHER_LANGUAGE
    if _invented(answer, source):
        return INVENTED
    known, said = set(content_words(source)), content_words(answer)
    if not said or sum(word in known for word in said) < MIN_GROUNDED_SHARE * len(said):
        return NOT_GROUNDED
    return ""


def _whole(passage: Passage) -> str:
    return f"{passage.title}\n{passage.heading}\n{shown_text(passage)}"


def _repeats(answer: str, question: str) -> bool:
    if normalised(answer) == normalised(question):
        return True
    asked, said = set(content_words(question)), content_words(answer)
    shared = sum(word in asked for word in said)
    return bool(said) and shared >= COPY_SHARE * len(said) and not fact_strings(answer, question)


def _invented(text: str, source: str) -> bool:
    """Whether an address, number or date of the text does not stand in the source, alone and as it is."""
    if not _addresses(text) <= _addresses(source):
        return True
    rest = _ADDRESS.sub(" ", text)
    if not set(_NUMBER.findall(rest)) <= set(_NUMBER.findall(source)):
        return True
    return not _lower(_SPELT.findall(rest)) <= _lower(_SPELT.findall(source))


def _addresses(text: str) -> set[str]:
    return {address.rstrip(".,;:!?") for address in _ADDRESS.findall(text)}


def _lower(words: Iterable[str]) -> set[str]:
    return {word.lower() for word in words}
