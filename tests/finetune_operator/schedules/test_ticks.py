"""Times of a cron expression, over the days on which clocks are set."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from finetune_operator.schedules.ticks import InvalidCron, Ticks


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def times(cron: str, start: str, count: int, zone: str = "Europe/Berlin") -> list[str]:
    ticks, moment, found = Ticks(cron, zone), at(start), []
    for _ in range(count):
        following = ticks.after(moment)
        assert following is not None
        found.append(following.isoformat())
        moment = following
    return found


def test_a_time_in_the_hour_that_is_left_out_comes_right_after_it_and_once():
    assert times("30 2 * * *", "2026-03-28T12:00:00+01:00", 3) == [
        "2026-03-29T01:00:00+00:00",
        "2026-03-30T00:30:00+00:00",
        "2026-03-31T00:30:00+00:00",
    ]


def test_a_time_in_the_hour_that_comes_twice_comes_once():
    assert times("30 2 * * *", "2026-10-24T12:00:00+02:00", 2) == [
        "2026-10-25T00:30:00+00:00",
        "2026-10-26T01:30:00+00:00",
    ]


def test_every_hour_means_every_hour_on_both_days():
    spring = times("0 * * * *", "2026-03-29T00:30:00+01:00", 3)
    autumn = times("0 * * * *", "2026-10-25T01:30:00+02:00", 3)

    assert spring == ["2026-03-29T00:00:00+00:00", "2026-03-29T01:00:00+00:00", "2026-03-29T02:00:00+00:00"]
    assert autumn == ["2026-10-25T00:00:00+00:00", "2026-10-25T01:00:00+00:00", "2026-10-25T02:00:00+00:00"]


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-06-01"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "*/20 * * * *", "0 1,2,3 * * *", "15 */2 * * 0"])
def test_looking_back_finds_the_times_that_looking_ahead_does(cron: str, day: str):
    ticks, moment = Ticks(cron, "Europe/Berlin"), at(f"{day}T00:00:00+00:00")
    for _ in range(8):
        following = ticks.after(moment)
        assert following is not None
        assert ticks.newest_between(moment, following) == following
        assert ticks.newest_between(following, following) is None
        moment = following


def test_of_many_that_were_missed_the_newest_is_found():
    ticks = Ticks("0 3 * * 1", "Etc/UTC")

    found = ticks.newest_between(at("2026-01-01T00:00:00+00:00"), at("2026-11-26T20:00:00+00:00"))

    assert found == at("2026-11-23T03:00:00+00:00")


@pytest.mark.parametrize(
    ("cron", "zone", "words"),
    [
        ("61 3 * * *", "Etc/UTC", "spec.cron: '61 3 * * *' cannot be read (Bad minute)"),
        ("a b c d e", "Etc/UTC", "such as 0 3 * * 1"),
        ("0 3 * * 1", "Europe/Atlantis", "spec.timeZone: Europe/Atlantis is not in the IANA database"),
        ("0 3 * * 1", "../etc/passwd", "spec.timeZone"),
    ],
)
def test_what_has_no_times_is_refused_with_field_fact_and_remedy(cron: str, zone: str, words: str):
    with pytest.raises(InvalidCron) as refused:
        Ticks(cron, zone)

    assert words in str(refused.value)


def test_a_day_that_never_comes_is_refused_or_has_no_time():
    try:
        never = Ticks("0 0 30 2 *", "Etc/UTC").after(at("2026-01-01T00:00:00+00:00"))
    except InvalidCron:
        return
    assert never is None
