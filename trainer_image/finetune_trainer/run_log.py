"""Progress of a stage: one JSON line a step in a Job, a live line on a terminal. Must not know what the steps are."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol, TextIO

from finetune_contract.stage_protocol import ProgressLine, Stage


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
            tokens_per_second=None if tokens_per_second is None else round(tokens_per_second, 1),
            eta_seconds=None if eta is None else round(eta, 1),
            time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        print(line.to_line(), file=self._out, flush=True)


class TerminalProgress:
    """The same for a person: one line that is rewritten, by rich."""

    def __init__(self, stage: Stage) -> None:
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn(f"[bold]{stage.value:9}[/]"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
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
    ) -> None:
        facts = [message] if message else []
        if loss is not None:
            facts.append(f"loss {loss:.3f}")
        if tokens_per_second is not None:
            facts.append(f"{tokens_per_second:.0f} tokens/s")
        self._bars.update(self._task, completed=step, total=total_steps or None, description="  ".join(facts))

    def close(self) -> None:
        """Leave the last line on the screen."""
        self._bars.stop()
