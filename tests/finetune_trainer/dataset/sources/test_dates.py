"""Dates as sites and people write them become one form, or none."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.dataset.sources.dates import as_utc


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2024-03-01T10:00:00", "2024-03-01T10:00:00Z"),
        ("2024-03-01 10:00:00 +0200", "2024-03-01T08:00:00Z"),
        ("2024-03", "2024-03-01T00:00:00Z"),
        ("Fri, 01 Mar 2024 10:00:00 +0100", "2024-03-01T09:00:00Z"),
        (date(2024, 3, 1), "2024-03-01T00:00:00Z"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9))), ""),
        ("-0001-11-30T00:00:00", ""),
        ("0000-00-00T00:00:00", ""),
        ("Mon, 1 Jan 2024 00:00:00 +99999999999999999999", ""),
        ("soon", ""),
        ("", ""),
    ],
)
def test_a_date_is_told_in_utc_and_what_is_none_is_empty(written, utc):
    assert as_utc(written) == utc


@given(st.text() | st.from_regex(r"\w{3}, \d+ Jan \d+ \d+:\d+:\d+ [+-]\d+", fullmatch=True))
def test_no_text_makes_it_fail(written):
    assert re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)?", as_utc(written))
