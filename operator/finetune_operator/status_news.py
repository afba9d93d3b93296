"""What a status write is news of, in numbers: attempts that ended, waits that were over, GPU time, rollouts. Pure.

Told once each: what the status before the write said already is no news, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finetune_contract.run_status import Attempt, FineTuneRunStatus, Phase, RolloutPhase, Usage
from finetune_contract.stage_protocol import Stage
from finetune_operator import outlook
from finetune_operator.rollout.states import OVER
from finetune_operator.timestamps import from_rfc3339, seconds_since
from finetune_operator.usage import RUNNING, SUCCEEDED


@dataclass(frozen=True)
class EndedAttempt:
    """A Job of a stage that is over."""

    stage: Stage
    result: str
    """Succeeded, or a reason."""
    seconds: float | None
    """From its first node to its end; None where it never had one."""

    @property
    def succeeded(self) -> bool:
        return self.result == SUCCEEDED


@dataclass(frozen=True)
class EndedWait:
    """An attempt got its first node."""

    stage: Stage
    seconds: float


@dataclass(frozen=True)
class EndedRun:
    """A run is over."""

    phase: Phase
    seconds: float | None
    """Since its first Job was made; None where none was."""


@dataclass(frozen=True)
class StatusNews:
    """What changed between two statuses of a run."""

    ended: tuple[EndedAttempt, ...] = ()
    waits: tuple[EndedWait, ...] = ()
    gpu_seconds: int = 0
    lost_gpu_seconds: int = 0
    """Below 0 where work that was taken for lost was gone on from."""
    rollout: RolloutPhase | None = None
    """How a rollout ended."""
    run: EndedRun | None = None


def status_news(before: FineTuneRunStatus, after: FineTuneRunStatus) -> StatusNews:
    """What the second status says and the first did not."""
    was, now = before.usage or Usage(), after.usage or before.usage or Usage()
    return StatusNews(
        ended=tuple(_ended(before, after)),
        waits=tuple(_waits(before, after)),
        gpu_seconds=now.gpu_seconds - was.gpu_seconds,
        lost_gpu_seconds=now.lost_gpu_seconds - was.lost_gpu_seconds,
        rollout=_rollout(before, after),
        run=_run(before, after),
    )


def _ended(before: FineTuneRunStatus, after: FineTuneRunStatus) -> Iterator[EndedAttempt]:
    known = {_which(attempt) for attempt in before.attempts if attempt.result != RUNNING}
    for attempt in after.attempts:
        if attempt.result != RUNNING and _which(attempt) not in known:
            yield EndedAttempt(attempt.stage, attempt.result, _seconds(attempt))


def _waits(before: FineTuneRunStatus, after: FineTuneRunStatus) -> Iterator[EndedWait]:
    known = {_which(attempt) for attempt in before.attempts if attempt.pods}
    for attempt in after.attempts:
        if attempt.pods and _which(attempt) not in known:
            yield EndedWait(attempt.stage, float(attempt.queue_seconds))


def _which(attempt: Attempt) -> tuple[Stage, int]:
    return attempt.stage, attempt.number


def _seconds(attempt: Attempt) -> float | None:
    """From the first node that an attempt got; its pods may have been told of together since."""
    end = from_rfc3339(attempt.finished_at)
    if end is None or not attempt.pods:
        return None
    return max(0.0, seconds_since(attempt.started_at, end) - attempt.queue_seconds)


def _rollout(before: FineTuneRunStatus, after: FineTuneRunStatus) -> RolloutPhase | None:
    was, now = before.rollout, after.rollout
    if now is None or now.phase not in OVER or (was is not None and was.phase is now.phase):
        return None
    return now.phase


def _run(before: FineTuneRunStatus, after: FineTuneRunStatus) -> EndedRun | None:
    if after.phase is None or after.phase not in outlook.OVER or before.phase in outlook.OVER:
        return None
    end = from_rfc3339(after.completion_time)
    seconds = seconds_since(after.start_time, end) if end and after.start_time else None
    return EndedRun(after.phase, seconds)
