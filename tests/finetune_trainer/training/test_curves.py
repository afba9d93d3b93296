"""Scale, ticks and thinning of the curves."""

from __future__ import annotations

import pytest

from finetune_trainer.training.curves import (
    Frame,
    frame_around,
    round_numbers,
    short_number,
    smoothed,
    thinned,
)


def test_the_first_and_the_last_step_lie_at_the_sides_and_the_highest_value_on_top() -> None:
    frame = Frame(100, 50, 1, 11, 0, 2, left=10, right=10, top=5, bottom=5)

    assert frame.path([(1, 0), (6, 2), (11, 1)]) == "M10 45 L50 5 L90 25"


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [
        (0, 2.1, [0, 1, 2]),
        (0.1, 0.9, [0.2, 0.4, 0.6, 0.8]),
        (0, 0.0015, [0, 0.0005, 0.001, 0.0015]),
        (980, 1130, [1000, 1050, 1100]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_numbers_that_a_person_would_choose(low: float, high: float, numbers: list[float]) -> None:
    assert round_numbers(low, high, 4) == numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0015, "0.0015"), (2e-5, "2e-5"), (1.5, "1.5"), (1200, "1,200"), (3_400_000, "3.4 M")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short_number(value) == text


@pytest.mark.parametrize("values", [[2.0], [0.0, 0.0], [5.0, 5.0, 5.0]])
def test_one_step_and_a_level_line_still_have_a_picture(values: list[float]) -> None:
    points = [(step, value) for step, value in enumerate(values, 1)]

    frame = frame_around(400, 200, points, from_zero=True)

    assert all(0 < frame.x(step) < 400 and 0 < frame.y(value) < 200 for step, value in points)
    assert frame.value_ticks


def test_a_run_of_two_steps_is_not_counted_in_halves() -> None:
    frame = frame_around(900, 300, [(1, 2.0), (2, 1.0)])

    assert [tick.text for tick in frame.step_ticks] == ["1", "2"]


def test_a_long_line_is_drawn_through_means_and_ends_where_it_ended() -> None:
    points = [(float(step), float(step % 2)) for step in range(100_000)]

    line = thinned(points, 101)

    assert len(line) == 101
    assert {value for _, value in line[:-1]} == {0.5}
    assert line[-1] == points[-1]
    assert thinned(points[:101], 101) == points[:101]


def test_a_smoothed_line_begins_and_ends_where_the_line_does_and_does_not_lag() -> None:
    falling = [(float(step), 10.0 - step) for step in range(9)]
    jagged = [(step, value + (0.5 if step % 2 else -0.5)) for step, value in falling]

    assert smoothed(falling, 3) == falling
    assert smoothed(jagged, 3)[0] == jagged[0]
    assert smoothed(jagged, 3)[-1] == jagged[-1]
    assert smoothed(jagged, 3)[4][1] == pytest.approx(falling[4][1], abs=0.1)
