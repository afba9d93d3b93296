"""Typing mistakes in questions, as readers make them. The same example has the same mistakes in every run.

Names, numbers and the strings that carry the fact are left alone: a mistake there would ask for something else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Container, Iterator, Sequence

from finetune_contract.artifacts import ChatMessage, Example
from finetune_trainer.dataset.examples.phrasing import normalised

MIN_LETTERS = 4
WORDS_PER_MISTAKE = 12
TEMPLATE_MARK = "+typo"
"""Ends the template's name of a question with mistakes."""
_PLAIN_WORD = re.compile(rf"(?<![\w'’.@/-])[a-z]{{{MIN_LETTERS},}}(?![\w'’@/-])")
_QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"|`[^`]*`")
_NEIGHBOURS = {
    letter: row[max(0, place - 1) : place] + row[place + 1 : place + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for place, letter in enumerate(row)
}


def with_typos(
    examples: Sequence[Example], share: float, seed: int, taken: Container[str] = ()
) -> list[Example]:
    """The examples in their order, about `share` of them with mistakes in the question.

    Args:
        examples: what is taught, or asked.
        share: from 0 to 1.
        seed: of the split.
        taken: normalised questions that must not come out.
    """
    return [
        _mistyped(example, seed, taken) if _chance(seed, example.id) < share else example
        for example in examples
    ]


def mistype(question: str, identity: str, protected: Collection[str] = ()) -> str:
    """A question with one mistake for every few words; as it is when no word can bear one."""
    off_limits = {word for text in protected for word in re.findall(r"\w+", text.lower())}
    quoted = [match.span() for match in _QUOTED.finditer(question)]
    words = [
        match
        for match in _PLAIN_WORD.finditer(question)
        if match.group() not in off_limits and not any(a <= match.start() < b for a, b in quoted)
    ]
    numbers = _numbers(identity)
    wanted = 1 + len(question.split()) // WORDS_PER_MISTAKE
    chosen = sorted(words, key=lambda match: hashlib.sha256(f"{identity}{match.start()}".encode()).digest())
    for match in sorted(chosen[:wanted], key=lambda match: -match.start()):
        spoilt = _spoil(match.group(), next(numbers), next(numbers))
        question = question[: match.start()] + spoilt + question[match.end() :]
    return question


def _mistyped(example: Example, seed: int, taken: Container[str]) -> Example:
    question = " ".join(example.question.split())
    last = example.prompt[-1]
    mistyped = mistype(question, f"{seed} {example.id}", example.must_contain)
    if mistyped == question or normalised(mistyped) in taken or not last.content.endswith(question):
        return example
    content = last.content.removesuffix(question) + mistyped
    return example.model_copy(
        update={
            "question": mistyped,
            "template": example.template + TEMPLATE_MARK,
            "prompt": [*example.prompt[:-1], ChatMessage(role=last.role, content=content)],
        }
    )


def _spoil(word: str, way: int, place: int) -> str:
    """Never the first letter: readers rarely miss it."""
    at = 1 + place % (len(word) - 2)
    if way % 4 == 0 and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if way % 4 == 1:
        return word[:at] + word[at] + word[at:]
    if way % 4 == 2 and _NEIGHBOURS[word[at]]:
        neighbours = _NEIGHBOURS[word[at]]
        return word[:at] + neighbours[place % len(neighbours)] + word[at + 1 :]
    return word[:at] + word[at + 1 :]


def _chance(seed: int, identity: str) -> float:
    return int.from_bytes(hashlib.sha256(f"typo {seed} {identity}".encode()).digest()[:8]) / 2**64


def _numbers(identity: str) -> Iterator[int]:
    count = 0
    while True:
        yield from hashlib.sha256(f"mistakes {count} {identity}".encode()).digest()
        count += 1
