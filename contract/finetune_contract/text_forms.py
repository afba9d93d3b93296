"""Forms of text: what a reader of an error message is told instead of a regular expression."""

from __future__ import annotations

from typing import Any

from pydantic import Field

FORM = "form"
"""Key of a JSON schema with the words."""
PRIVATE = "mayHoldSecret"
"""Key of a JSON schema: people paste secrets there, so no message may repeat what was found."""


def text_form(pattern: str, words: str, *, shortest: int = 0, longest: int, private: bool = False) -> Any:
    """A pydantic Field of text that must look so.

    Args:
        pattern: regular expression that Python, RE2 and ECMAScript read alike, without a single quote.
        words: what to write, as the end of a message: `write an address such as https://blog.example.com`.
        shortest: characters at least.
        longest: characters at most.
        private: people paste secrets there.
    """
    told: dict[str, Any] = {FORM: words} | ({PRIVATE: True} if private else {})
    return Field(pattern=pattern, min_length=shortest or None, max_length=longest, json_schema_extra=told)
