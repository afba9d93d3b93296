"""The net below every other care: what a stage says of an error holds no value of a secret environment variable.

Libraries repeat headers in their errors, and the report becomes the status of the run, which more people may read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from finetune_contract.secret_text import without_margins

MASK = "***"
SHORTEST = 8
"""Characters. A shorter value may be a plain word, and would make the error itself unreadable."""
_SECRET = re.compile(r"(^|_)(KEY|TOKEN|PASSWORD|SECRET)(_|$)")


def masked(text: str, environment: Mapping[str, str]) -> str:
    """The text with each secret of the environment replaced, also where Python has written it with escapes."""
    values = {
        without_margins(value)
        for name, value in environment.items()
        if _SECRET.search(name) and not name.endswith("_FILE")
    }
    forms = {form for value in values for form in (value, repr(value)[1:-1], repr(value.encode())[2:-1])}
    for form in sorted(forms, key=len, reverse=True):  # one may begin with another
        if len(form) >= SHORTEST:
            text = text.replace(form, MASK)
    return text
