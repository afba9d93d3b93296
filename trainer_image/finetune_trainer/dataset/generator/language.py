"""Which alphabet a text is written in, and, for a few languages of Europe, which language. Pure; small on purpose."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

MIN_FUNCTION_WORDS = 3
CLEAR_LEAD = 2
"""The first language must have this many times the function words of the second."""
_WORD = re.compile(r"[^\W\d_]+")
_FUNCTION_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the of and to is are was were in for with that this it from by on at as be has have not you your we our",
        "de": "der die das und ist sind war nicht mit für von dem den ein eine einer zu auf im wird werden auch wir",
        "fr": "le la les des et est sont une du pour dans avec que qui sur pas vous nous ce cette au aux par plus il",
        "es": "el los las una y es son del para con que por se su como más pero esta este al lo está hay en",
        "it": "il lo gli una e è sono del della per con che di non si nel alla dei anche come più questo questa",
        "nl": "de het een en is zijn van voor met dat niet op te aan ook wordt worden bij naar om uit deze die wij",
        "pt": "o os as uma e é são do da dos das para com que não por se no na em mais ao pelo também como",
        "pl": "i w na z jest są nie do się to że dla od po o jak oraz przez który która są było",
    }.items()
}


def alphabet(text: str) -> str:
    """Name of the script of most letters, such as `LATIN`; empty without letters."""
    scripts = Counter(
        unicodedata.name(letter, "UNKNOWN").split(" ")[0].split("-")[0] for letter in text if letter.isalpha()
    )
    return max(scripts, key=lambda script: (scripts[script], script)) if scripts else ""


def language(text: str) -> str:
    """Code of the language, where its function words leave no doubt; else empty."""
    words = [word.lower() for word in _WORD.findall(text)]
    counts = sorted(
        ((sum(word in known for word in words), code) for code, known in _FUNCTION_WORDS.items()),
        reverse=True,
    )
    (first, code), (second, _) = counts[:2]
    return code if first >= MIN_FUNCTION_WORDS and first >= CLEAR_LEAD * second else ""


def is_same_language(text: str, original: str) -> bool:
    """Whether nothing shows that the text is in another language or alphabet than the original."""
    if alphabet(text) and alphabet(text) != alphabet(original):
        return False
    found, expected = language(text), language(original)
    return not (found and expected and found != expected)
