"""When a loss has run away for good. Pure; knows neither model nor spec.

It is meant to be slow to judge: a run that is stopped without need costs more than some minutes of a lost one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import mean, median_low

WINDOW = 20
"""Steps that are looked at together; one bad batch is no divergence."""
FEWEST_STEPS = 10
"""The first mean is taken over so many steps, so that a run that goes wrong at once has something to be held to."""


def highest_sound_loss(best: float) -> float:
    """Far above anything that shuffled data or a jump of the rate does to a mean of `best`."""
    return 2 * best + 1


@dataclass(frozen=True)
class Divergence:
    """The facts of a judgement."""

    first_step: int
    last_step: int
    loss: float
    """Median of these steps."""
    best: float
    """Lowest mean of neighbouring steps so far."""
    best_step: int
    """The last of those."""


class LossWatch:
    """Sees the losses in order; a resumed run shows it those of its log first."""

    def __init__(self, warmup_steps: int) -> None:
        """Only steps after the warm-up are judged."""
        self._warmup_steps = warmup_steps
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._step = 0
        self._best = float("inf")
        self._best_step = 0

    def see(self, loss: float) -> Divergence | None:
        """What the next step's loss shows; None while all is well or nothing can be said."""
        self._step += 1
        self._recent.append(loss)
        first = self._step - WINDOW + 1
        if first > self._warmup_steps:
            middle = median_low(self._recent)
            if middle > highest_sound_loss(self._best):
                return Divergence(first, self._step, middle, self._best, self._best_step)
        if len(self._recent) >= FEWEST_STEPS and (average := mean(self._recent)) < self._best:
            self._best, self._best_step = average, self._step
        return None
