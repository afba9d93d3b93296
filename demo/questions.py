"""The questions that are asked before and after, and what makes an answer right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

QUESTIONS_FILE = Path(__file__).resolve().parent.parent / "devcluster" / "sample_site" / "questions.yaml"
LONGEST_ANSWER_WORDS = 45
"""A short answer is part of a right one: readers do not want an essay."""


@dataclass(frozen=True)
class Question:
    """What is asked and what a right answer holds."""

    question: str
    must_contain: tuple[str, ...] = ()
    url_slug: str = ""
    must_refuse: bool = False


@dataclass(frozen=True)
class Retrain:
    """One changed fact in one post, and the question that only the new model answers rightly."""

    slug: str
    old: str
    new: str
    question: Question


@dataclass(frozen=True)
class Answer:
    """What the site said."""

    text: str
    links: tuple[str, ...]
    """Pages that the answer cites as `[n]`; what search found besides does not count."""
    model: str
    refused: bool
    seconds: float


def faults(question: Question, answer: Answer) -> list[str]:
    """What is wrong with an answer; nothing when it is right."""
    if question.must_refuse:
        return [] if answer.refused else ["should have said that the site does not know"]
    found = []
    text = " ".join(answer.text.split())
    if answer.refused:
        found.append("refused")
    found += [f"lacks {wanted!r}" for wanted in question.must_contain if not _holds(text, wanted)]
    if not answer.links:
        found.append("cites no page")
    elif not any(link.rstrip("/").endswith("/" + question.url_slug) for link in answer.links):
        found.append("cites another page")
    if (words := len(text.split())) > LONGEST_ANSWER_WORDS:
        found.append(f"rambles: {words} words")
    return found


def _holds(text: str, wanted: str) -> bool:
    """Whether a fact stands in a text as words of its own: 61, not 1961."""
    return re.search(rf"(?<![\w,]){re.escape(wanted)}(?!\w)", text, re.IGNORECASE) is not None


def demo_questions(path: Path = QUESTIONS_FILE) -> list[Question]:
    """The five questions of the demo."""
    return [_question(entry) for entry in _load(path)["demo"]]


def more_questions(path: Path = QUESTIONS_FILE) -> list[Question]:
    """Further questions for those who want to look closer."""
    return [_question(entry) for entry in _load(path)["extra"]]


def retrain_story(path: Path = QUESTIONS_FILE) -> Retrain:
    """The edit of `make demo-retrain`."""
    story = _load(path)["retrain"]
    return Retrain(
        slug=story["slug"],
        old=story["replace"]["old"],
        new=story["replace"]["new"],
        question=Question(story["question"], tuple(story["must_contain"]), story["slug"]),
    )


def _load(path: Path) -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def _question(entry: Mapping[str, Any]) -> Question:
    must_contain: Sequence[str] = entry.get("must_contain", ())
    return Question(
        entry["question"],
        tuple(must_contain),
        entry.get("url_slug", ""),
        bool(entry.get("must_refuse", False)),
    )
