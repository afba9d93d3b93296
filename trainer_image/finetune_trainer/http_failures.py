"""What HTTP says of a failure: how long to wait, and what was at the bottom of it. Must not know who asks."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests

MAX_WAIT_SECONDS = 120.0
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


def seconds_to_wait(retry_after: str, now: datetime | None) -> float | None:
    """What a Retry-After header asks for (RFC 9110, 10.2.3), at most MAX_WAIT_SECONDS; None when it cannot be told.

    Args:
        retry_after: seconds or a date; empty when there is no such header.
        now: what a date is taken against; None when that is not known.
    """
    value = retry_after.strip()
    if _SECONDS.fullmatch(value):
        return min(MAX_WAIT_SECONDS, float(value))
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if now is None:
        return None
    seconds = ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds()
    return min(MAX_WAIT_SECONDS, max(0.0, seconds))


def innermost_cause(error: requests.RequestException) -> str:
    """The innermost reason, without the object addresses that urllib3 prints."""
    reason: BaseException = error
    while (
        inner := getattr(reason, "reason", None) or next(iter(reason.args), None)
    ) is not None and isinstance(inner, BaseException):
        reason = inner
    return str(reason).rpartition(">: ")[2] or type(error).__name__
