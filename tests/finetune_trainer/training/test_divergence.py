from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.training.divergence import WINDOW, Divergence, LossWatch, highest_sound_loss

WARMUP = 10


def watch(losses: list[float], warmup_steps: int = WARMUP) -> Divergence | None:
    """The first judgement on a run."""
    watch = LossWatch(warmup_steps)
    return next((found for loss in losses if (found := watch.see(loss)) is not None), None)


def noisy(start: float, end: float, steps: int, noise: float, seed: int = 3) -> list[float]:
    dice = random.Random(seed)  # noqa: S311 - noise, not a secret
    return [
        max(0.0, start + (end - start) * step / steps + dice.uniform(-noise, noise)) for step in range(steps)
    ]


def test_a_loss_that_runs_away_and_stays_is_found_with_its_numbers():
    found = watch([*noisy(2.5, 1.0, 100, 0.1), *noisy(8.0, 8.0, 100, 0.5)])

    assert found is not None
    assert found.last_step - found.first_step + 1 == WINDOW
    assert 100 < found.last_step <= 100 + WINDOW
    assert 7.5 <= found.loss <= 8.5
    assert found.best == pytest.approx(1.15, abs=0.1)
    assert found.best_step <= 100


def test_a_loss_that_goes_wrong_soon_after_the_first_steps_is_found():
    assert watch([*noisy(2.0, 2.0, WARMUP, 0.1), *noisy(9.0, 9.0, 60, 0.1)]) is not None


@pytest.mark.parametrize(
    "losses",
    [
        noisy(2.5, 0.3, 500, 0.2),
        noisy(2.5, 2.5, 500, 1.5),
        noisy(0.05, 0.9, 500, 0.04),
        [*noisy(2.5, 1.0, 100, 0.1), 60.0, 80.0, *noisy(1.2, 0.8, 100, 0.1)],
        [*noisy(2.5, 1.0, 100, 0.1), *noisy(8.0, 8.0, WINDOW // 2, 0.1), *noisy(1.5, 1.0, 100, 0.1)],
    ],
    ids=["falls", "is noisy", "learns nothing from a low start", "jumps twice", "is away for ten steps"],
)
def test_a_loss_that_only_looks_bad_is_left_alone(losses: list[float]):
    assert watch(losses) is None


def test_nothing_is_judged_in_the_warm_up():
    losses = [*noisy(1.0, 1.0, 20, 0.1), *noisy(9.0, 9.0, 60, 0.1)]

    assert watch(losses, warmup_steps=len(losses)) is None
    found = watch(losses, warmup_steps=30)
    assert found is not None
    assert found.first_step > 30


@given(st.lists(st.floats(0, 20), max_size=120), st.integers(0, 40))
def test_a_loss_below_the_bound_of_what_was_reached_is_never_stopped(losses: list[float], warmup: int):
    """Whatever the order: a run is stopped only when half of the last steps are over the bound."""
    seen = LossWatch(warmup)
    for step, loss in enumerate(losses, start=1):
        found = seen.see(loss)
        if found is not None:
            over = sum(other > highest_sound_loss(found.best) for other in losses[step - WINDOW : step])
            assert over >= WINDOW // 2
            assert found.first_step > warmup
            return
