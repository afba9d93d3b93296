"""Time as Kubernetes writes it."""

from __future__ import annotations

import pytest

from finetune_operator.timestamps import from_rfc3339, in_words, seconds_since, to_rfc3339
from tests.finetune_operator.samples import NOON, later


def test_a_moment_comes_back_as_it_went():
    assert from_rfc3339(to_rfc3339(NOON)) == NOON


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00Z"])
def test_no_moment_is_none_and_no_time_has_passed(text):
    assert from_rfc3339(text) is None
    assert seconds_since(text, NOON) == 0


def test_a_moment_ahead_counts_as_now():
    assert seconds_since(to_rfc3339(later(5)), NOON) == 0
    assert seconds_since(to_rfc3339(NOON), later(5)) == 5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (45.4, "45s"), (250, "4m10s"), (3600, "1h00m"), (7500, "2h05m"), (-3, "0s")],
)
def test_durations_read_well(seconds, words):
    assert in_words(seconds) == words
