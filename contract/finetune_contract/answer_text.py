"""Text of answers as metrics compare it: lower case, one kind of quote and dash, no citations, single spaces. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from finetune_contract.prompt import CITATION, is_refusal

_SAME = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u00a0": " ", "\u202f": " "}
)
_WORD = re.compile(r"[^\W_]+(?:[.,:'-][^\W_]+)*")


def normalised(text: str) -> str:
    """The comparable form of a text."""
    text = CITATION.sub("", unicodedata.normalize("NFKC", text.translate(_SAME)))
    return " ".join(text.lower().split())


def words(text: str) -> list[str]:
    """Words of the comparable form; numbers such as 7.40 and 09:30 stay whole."""
    return _WORD.findall(normalised(text))


def contains(text: str, wanted: str) -> bool:
    """Whether the wanted string stands in the text and is no part of a longer word or number."""
    pattern = re.escape(normalised(wanted))
    return re.search(rf"(?<![\w]){pattern}(?![\w]|[.,:]\d)", normalised(text)) is not None


def is_right(answer: str, must_contain: Sequence[str]) -> bool:
    """All strings that carry the fact are there; without any, the answer says that the site does not know."""
    return all(contains(answer, one) for one in must_contain) if must_contain else is_refusal(answer)
