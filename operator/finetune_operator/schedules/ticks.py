"""Times of a cron expression in a time zone. Pure; daylight saving as Debian's cron handles it (cronsim)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

_JUST_AFTER = timedelta(seconds=1)
"""cronsim leaves out the moment that it is given."""


class InvalidCron(ValueError):
    """The expression has no times, or the zone is not known. The message names field, fact and remedy."""


class Ticks:
    """Times of one expression.

    Raises:
        InvalidCron: it cannot be read.
    """

    def __init__(self, cron: str, time_zone: str) -> None:
        self._cron = cron
        try:
            self._zone = ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidCron(
                f"spec.timeZone: {time_zone} is not in the IANA database; write a name such as Europe/Berlin"
            ) from None
        try:
            CronSim(cron, datetime(2000, 1, 1, tzinfo=self._zone))
        except CronSimError as error:
            raise InvalidCron(
                f"spec.cron: {cron!r} cannot be read ({str(error).rstrip('.')}); write minute, hour, day of the "
                "month, month and day of the week, such as 0 3 * * 1"
            ) from None

    def after(self, moment: datetime) -> datetime | None:
        """The first one later than a moment; None for an expression such as 0 0 30 2 *, which never comes."""
        found = next(iter(CronSim(self._cron, moment.astimezone(self._zone))), None)
        return found.astimezone(UTC) if found is not None else None

    def newest_between(self, moment: datetime, now: datetime) -> datetime | None:
        """The newest one that is later than a moment, and not later than now."""
        just_after = (now + _JUST_AFTER).astimezone(self._zone)
        found = next(iter(CronSim(self._cron, just_after, reverse=True)), None)
        if found is None or found <= moment:
            return None
        return found.astimezone(UTC)
