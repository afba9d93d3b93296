"""Dates as sites and people write them, in the one form of a document: RFC 3339, UTC."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime

UNDATED = "1970-01-01T00:00:00Z"
"""Date of a document that has none."""


def as_utc(written: str | date | datetime) -> str:
    """RFC 3339 in UTC with a Z; a date without a zone is taken as UTC. Empty when it is no date."""
    moment = written if isinstance(written, date) else _parsed(written.strip())
    if moment is None:
        return ""
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        return ""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment.year >= 1000 else ""


def _parsed(text: str) -> datetime | None:
    text = re.sub(r"\s+([+-]\d\d:?\d\d|Z|UTC)$", r"\1", text).replace("UTC", "Z")
    text = re.sub(r"^(\d{4})[/.](\d{2})[/.](\d{2})", r"\1-\2-\3", text)
    if not re.match(r"\d{4}-\d{2}", text):
        return _mail_date(text)
    try:
        return datetime.fromisoformat(f"{text}-01" if len(text) == 7 else text)
    except ValueError:
        return None


def _mail_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a zone of a million hours
        return None
