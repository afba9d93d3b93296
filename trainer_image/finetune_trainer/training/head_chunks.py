"""How many answer tokens have their logits made at once. Pure: the loss and the memory estimate both ask."""

from __future__ import annotations

LOGITS_BYTES = 256 * 2**20
"""Of one piece in 32 bits. 262 tokens of Gemma's 256,000 words, 1,365 of SmolLM2's 49,152: enough rows to keep a GPU's
matrix units busy, and little beside what the layers keep."""


def tokens_at_once(vocabulary: int) -> int:
    """At least one."""
    return max(1, LOGITS_BYTES // (4 * vocabulary))
