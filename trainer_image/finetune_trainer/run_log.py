"""Progress of a stage: one JSON line a step in a Job, a live line on a terminal. Must not know what the steps are."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, TextIO

from finetune_contract.stage_protocol import ProgressLine, Stage, StepShare

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

CURVE_WIDTH = 24
"""Characters of the loss's curve on a terminal."""


class Progress(Protocol):
    """Where a stage says how far it is."""

    def __call__(
        self,
        step: int = 0,
        total_steps: int = 0,
        *,
        message: str = "",
        loss: float | None = None,
        tokens_per_second: float | None = None,
        evaluation_loss: float | None = None,
        memory_bytes: int | None = None,
        share: StepShare | None = None,
    ) -> None:
        """Say that `step` of `total_steps` is done; the time left is worked out from the pace so far."""


class Pace:
    """Seconds left, from the steps done since this message began."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._message = ""
        self._start = (0.0, 0)

    def eta_seconds(self, step: int, total_steps: int, message: str) -> float | None:
        """None while nothing is known."""
        if message != self._message or step < self._start[1]:
            self._message, self._start = message, (self._clock(), step)
            return None
        done = step - self._start[1]
        if done <= 0 or total_steps <= 0:
            return None
        return (self._clock() - self._start[0]) / done * max(0, total_steps - step)


class JsonProgress:
    """One ProgressLine a call, at most one every `interval_seconds`, the last step always."""

    def __init__(self, stage: Stage, out: TextIO = sys.stdout, interval_seconds: float = 1.0) -> None:
        self._stage, self._out, self._interval = stage, out, interval_seconds
        self._pace = Pace()
        self._last = (-1e9, "")

    def __call__(
        self,
        step: int = 0,
        total_steps: int = 0,
        *,
        message: str = "",
        loss: float | None = None,
        tokens_per_second: float | None = None,
        evaluation_loss: float | None = None,
        memory_bytes: int | None = None,
        share: StepShare | None = None,
    ) -> None:
        eta = self._pace.eta_seconds(step, total_steps, message)
        now = time.monotonic()
        is_last = 0 < total_steps <= step
        if now - self._last[0] < self._interval and message == self._last[1] and not is_last:
            return
        self._last = (now, message)
        line = ProgressLine(
            stage=self._stage,
            step=step,
            total_steps=total_steps,
            message=message,
            loss=None if loss is None else round(loss, 4),
            evaluation_loss=None if evaluation_loss is None else round(evaluation_loss, 4),
            tokens_per_second=None if tokens_per_second is None else round(tokens_per_second, 1),
            memory_bytes=memory_bytes,
            eta_seconds=None if eta is None else round(eta, 1),
            share=share,
            time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        print(line.to_line(), file=self._out, flush=True)


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as a line of text, ▁ for the lowest and █ for the highest; many values become means of pieces."""
    heights = "▁▂▃▄▅▆▇█"
    pieces = min(width, len(values))
    cuts = [number * len(values) // pieces for number in range(pieces + 1)] if pieces else []
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(cuts)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(heights) - 1) / (high - low) if high > low else 0.0
    return "".join(heights[round((mean - low) * scale)] for mean in means)


class TerminalProgress:
    """The same for a person, by rich: one line that is rewritten, and below it the curve of the loss so far."""

    def __init__(self, stage: Stage, console: Console | None = None) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        class WithCurve(RichProgress):
            curve = ""

            def get_renderables(self) -> Iterable[RenderableType]:
                yield from super().get_renderables()
                if self.curve:
                    yield self.curve

        self._bars = WithCurve(
            TextColumn(f"[bold]{stage.value:9}[/]"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
        )
        self._losses: list[float] = []
        self._task = self._bars.add_task("", total=None)
        self._bars.start()

    def __call__(
        self,
        step: int = 0,
        total_steps: int = 0,
        *,
        message: str = "",
        loss: float | None = None,
        tokens_per_second: float | None = None,
        evaluation_loss: float | None = None,
        memory_bytes: int | None = None,
        share: StepShare | None = None,
    ) -> None:
        if loss is not None:
            self._losses.append(loss)
            facts = [f"loss {sparkline(self._losses, CURVE_WIDTH)} {loss:.3f}"]
            if evaluation_loss is not None:
                facts.append(f"evaluation {evaluation_loss:.3f}")
            if tokens_per_second is not None:
                facts.append(f"{tokens_per_second:,.0f} tokens/s")
            if memory_bytes is not None:
                facts.append(f"{memory_bytes / 2**30:.1f} GiB")
            self._bars.curve = "  ".join(facts)
        self._bars.update(self._task, completed=step, total=total_steps or None, description=message)

    def close(self) -> None:
        """Leave the last lines on the screen."""
        self._bars.stop()
