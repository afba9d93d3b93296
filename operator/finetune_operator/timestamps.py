"""Time as Kubernetes writes it: RFC 3339, UTC, whole seconds. Must not know what time it is."""

from __future__ import annotations

from datetime import UTC, datetime


def to_rfc3339(moment: datetime) -> str:
    """`2026-01-31T08:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_rfc3339(text: str) -> datetime | None:
    """The moment, or None when the text is empty or something else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_since(text: str, now: datetime) -> float:
    """Seconds from the moment in `text` to `now`; 0 when there is none or it lies ahead."""
    moment = from_rfc3339(text)
    return max(0.0, (now - moment).total_seconds()) if moment else 0.0


def in_words(seconds: float) -> str:
    """A duration for people, such as `45s`, `4m10s` or `2h05m`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{left:02d}s" if minutes else f"{left}s"
