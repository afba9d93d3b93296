"""Numbers over steps as lines of an SVG picture: scale, ticks, paths. Pure; must not know what the numbers are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_POINTS = 400
"""A line of a long run is drawn through the means of so many pieces."""

Point = tuple[float, float]
"""Step and value."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis."""

    place: float
    text: str


@dataclass(frozen=True)
class Frame:
    """A picture's size, and the steps and values that fill it."""

    width: int
    height: int
    first_step: float
    last_step: float
    low: float
    high: float
    left: int = 58
    right: int = 14
    top: int = 12
    bottom: int = 26

    def x(self, step: float) -> float:
        """Where a step lies, from the left."""
        share = (step - self.first_step) / max(1e-9, self.last_step - self.first_step)
        return round(self.left + share * (self.width - self.left - self.right), 1)

    def y(self, value: float) -> float:
        """Where a value lies, from the top."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.height - self.bottom - share * (self.height - self.top - self.bottom), 1)

    def path(self, points: Sequence[Point]) -> str:
        """The `d` of a line through the points."""
        return "M" + " L".join(f"{self.x(step):g} {self.y(value):g}" for step, value in points)

    @property
    def value_ticks(self) -> list[Tick]:
        """Round values at the left side."""
        return [Tick(self.y(value), short_number(value)) for value in round_numbers(self.low, self.high, 4)]

    @property
    def step_ticks(self) -> list[Tick]:
        """Round steps at the bottom, whole ones only."""
        wanted = max(2, self.width // 130)
        steps = [step for step in round_numbers(self.first_step, self.last_step, wanted) if step == int(step)]
        return [Tick(self.x(step), f"{int(step):,}") for step in steps]


def frame_around(width: int, height: int, *lines: Sequence[Point], from_zero: bool = False) -> Frame:
    """The frame that holds all points, with a little air; `from_zero` keeps the zero in sight."""
    points = [point for line in lines for point in line]
    steps = [step for step, _ in points] or [0.0]
    values = [value for _, value in points] or [0.0]
    low, high = min(values), max(values)
    if from_zero:
        low = min(0.0, low)
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    first, last = min(steps), max(steps)
    if first == last:
        first, last = first - 1, last + 1
    return Frame(width, height, first, last, low if from_zero and low == 0 else low - air, high + air)


def round_numbers(low: float, high: float, wanted: int) -> list[float]:
    """About so many numbers of one, two or five times a power of ten, from low to high."""
    rough = (high - low) / max(1, wanted)
    if rough <= 0 or not math.isfinite(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    stride = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / stride - 1e-9), math.floor(high / stride + 1e-9)
    return [round(number * stride, 12) for number in range(first, last + 1)]


def short_number(value: float) -> str:
    """For the side of a picture: 0.0015, 12.5, 1,200, 3.4 M."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g} M"
    if size >= 1000:
        return f"{value:,.0f}"
    if size and size < 1e-4:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.4g}"


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """The same line with at most so many points, each the mean of its piece; the last point stays."""
    if len(points) <= most:
        return list(points)
    kept = []
    for piece in range(most - 1):
        part = points[piece * len(points) // (most - 1) : (piece + 1) * len(points) // (most - 1)]
        kept.append((_mean([step for step, _ in part]), _mean([value for _, value in part])))
    return [*kept, points[-1]]


def smoothed(points: Sequence[Point], reach: int) -> list[Point]:
    """Each value as the mean of itself and up to `reach` neighbours on either side, as many on one as on the other."""
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    line = []
    for place, (step, _) in enumerate(points):
        near = min(reach, place, len(points) - 1 - place)
        line.append((step, (sums[place + near + 1] - sums[place - near]) / (2 * near + 1)))
    return line


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
