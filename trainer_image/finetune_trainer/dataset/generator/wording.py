"""What the language model is asked, and how its answer is read. Pure text.

It is shown a section as readers' prompts show it, so that nothing is taught that such a prompt does not tell.
"""

from __future__ import annotations

import json
import re

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_contract.prompt import MAX_PASSAGE_WORDS
from finetune_contract.sections import Passage, shorten, without_links

MAX_PAIRS = 4
MAX_WORDINGS = 3
MAX_ANSWER_TOKENS = 640
INSTRUCTION = f"""You write questions that readers of a web site ask, with their answers.
Use only what the section says. Copy numbers, dates, names and addresses exactly. Write in the language of the section.
A question must be understood without the section: name what it is about, never "the text" or "the section".
Give up to {MAX_PAIRS} pairs, each about another fact. Each has one to {MAX_WORDINGS} wordings of its question and one \
short answer in a full sentence. Give fewer pairs rather than guess.
Answer with JSON only, in this form:
{{"pairs": [{{"questions": ["...", "..."], "answer": "..."}}]}}"""
SCHEMA: dict[str, object] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["pairs"],
    "properties": {
        "pairs": {
            "type": "array",
            "maxItems": MAX_PAIRS,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["questions", "answer"],
                "properties": {
                    "questions": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": MAX_WORDINGS,
                        "items": {"type": "string"},
                    },
                    "answer": {"type": "string"},
                },
            },
        }
    },
}
_THOUGHTS = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.S)


class RawPair(BaseModel):
    """One pair as the model wrote it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    questions: list[str]
    answer: str


class _RawPairs(BaseModel):
    model_config = ConfigDict(extra="ignore")

    pairs: list[RawPair]


def shown_text(passage: Passage) -> str:
    """The words of a section that a prompt has room for."""
    return shorten(without_links(passage.text), MAX_PASSAGE_WORDS)


def section_message(passage: Passage) -> str:
    """The section as the model is shown it."""
    heading = f"\nHeading: {passage.heading}" if passage.heading else ""
    return f"Page: {passage.title}{heading}\n\n{shown_text(passage)}"


def read_pairs(content: str) -> list[RawPair] | None:
    """The pairs in what the model said, also after thoughts or in a code fence; None without such JSON."""
    text = _THOUGHTS.sub("", content)
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[\[{]", text):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        except RecursionError:
            return None  # nested without end, and so at every later place
        found = _as_pairs(value)
        if found is not None:
            return found
    return None


def _as_pairs(value: object) -> list[RawPair] | None:
    try:
        return _RawPairs.model_validate({"pairs": value} if isinstance(value, list) else value).pairs
    except (ValidationError, RecursionError):
        return None
