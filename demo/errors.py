"""What ends a demo."""

from __future__ import annotations


class DemoError(Exception):
    """Something did not happen; the message says what, and what to do."""
