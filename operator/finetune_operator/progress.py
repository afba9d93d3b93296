"""How far the running stage is, from the end of its log. Pure."""

from __future__ import annotations

from datetime import datetime

from finetune_contract.run_status import Progress
from finetune_contract.stage_protocol import CONTAINER_NAME, ProgressLine, Stage
from finetune_operator.observed import JobFacts
from finetune_operator.timestamps import from_rfc3339, in_words, seconds_since, to_rfc3339

SILENT_SECONDS = 120.0
LONGEST_ESTIMATE_SECONDS = 365 * 86_400
MAX_TIME_LENGTH = 64


def read_progress(
    before: Progress | None, stage: Stage, log_tail: tuple[str, ...] | None, now: datetime
) -> Progress:
    """The last progress line of the stage; what was known before when the log says nothing new."""
    line = next(
        (found for text in reversed(log_tail or ()) if (found := ProgressLine.parse(text)) is not None), None
    )
    if line is None or line.stage != stage:
        if before is None or before.stage != stage:
            return _shown(started(before, stage, now), stale=log_tail is None)
        return _shown(
            before, stale=log_tail is None or seconds_since(before.updated_at, now) > SILENT_SECONDS
        )
    mine = before if before is not None and before.stage == stage else None
    loss = f"{line.loss:.4f}" if line.loss is not None else (before.loss if before else "")
    message = line.message[:1024]
    moved = mine is None or not mine.moved_at or (mine.step, mine.message) != (line.step, message)
    if from_rfc3339(line.time):
        updated_at = line.time[:MAX_TIME_LENGTH]
    else:
        updated_at = to_rfc3339(now) if moved or mine is None else mine.updated_at
    progress = Progress(
        stage=stage,
        step=line.step,
        total_steps=line.total_steps,
        percent=min(100, max(0, round(100 * line.step / line.total_steps))) if line.total_steps > 0 else 0,
        loss=loss,
        tokens_per_second=f"{line.tokens_per_second:.0f}" if line.tokens_per_second is not None else "",
        eta_seconds=_seconds_left(line.eta_seconds),
        message=message,
        updated_at=updated_at,
        moved_at=to_rfc3339(now) if moved or mine is None else mine.moved_at,
    )
    return _shown(progress, stale=seconds_since(updated_at, now) > SILENT_SECONDS)


def idle_seconds(progress: Progress, job: JobFacts, now: datetime) -> float:
    """How long the containers have run without a new step or message of any; 0 while that cannot be known.

    Both times are the operator's own or the kubelet's: a container whose clock is wrong is not called idle.
    """
    containers = [pod.container(CONTAINER_NAME) for pod in job.pods]
    started_at = [found.started_at for found in containers if found is not None and found.running]
    if not all(started_at) or not started_at or job.log_tail is None:
        return 0.0
    return min(seconds_since(progress.moved_at, now), *(seconds_since(moment, now) for moment in started_at))


def started(before: Progress | None, stage: Stage, now: datetime) -> Progress:
    """A stage that has said nothing yet. The loss of training stays in view while later stages run."""
    moment = to_rfc3339(now)
    return Progress(stage=stage, loss=before.loss if before else "", updated_at=moment, moved_at=moment)


def without_estimate(progress: Progress | None) -> Progress | None:
    """The same when nothing runs any more."""
    if progress is None:
        return None
    return progress.model_copy(update={"eta": "", "eta_seconds": 0, "stale": False})


def _seconds_left(eta: float | None) -> int:
    """Whole seconds; 0 when the stage does not know, or names what is no length of time."""
    return round(eta) if eta is not None and 0 <= eta <= LONGEST_ESTIMATE_SECONDS else 0


def _shown(progress: Progress, *, stale: bool) -> Progress:
    """With an estimate for people that does not hide that nothing was heard lately."""
    words = [in_words(progress.eta_seconds)] if progress.eta_seconds else []
    return progress.model_copy(update={"stale": stale, "eta": " ".join([*words, *(["(stale)"] * stale)])})
