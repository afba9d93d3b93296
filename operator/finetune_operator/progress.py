"""How far the running stage is, from the end of its log. Pure."""

from __future__ import annotations

from datetime import datetime

from finetune_contract.run_status import Progress
from finetune_contract.stage_protocol import ProgressLine, Stage
from finetune_operator.timestamps import in_words, seconds_since, to_rfc3339

SILENT_SECONDS = 120.0


def read_progress(
    before: Progress | None, stage: Stage, log_tail: tuple[str, ...] | None, now: datetime
) -> Progress:
    """The last progress line of the stage; what was known before when the log says nothing new."""
    line = next(
        (found for text in reversed(log_tail or ()) if (found := ProgressLine.parse(text)) is not None), None
    )
    if line is None or line.stage != stage:
        if before is None or before.stage != stage:
            return started(before, stage, now).model_copy(update={"stale": log_tail is None})
        stale = log_tail is None or seconds_since(before.updated_at, now) > SILENT_SECONDS
        return before.model_copy(update={"stale": stale})
    updated_at = line.time or (before.updated_at if before else "") or to_rfc3339(now)
    loss = f"{line.loss:.4f}" if line.loss is not None else (before.loss if before else "")
    eta = line.eta_seconds
    return Progress(
        stage=stage,
        step=line.step,
        total_steps=line.total_steps,
        percent=min(100, max(0, round(100 * line.step / line.total_steps))) if line.total_steps > 0 else 0,
        loss=loss,
        tokens_per_second=f"{line.tokens_per_second:.0f}" if line.tokens_per_second is not None else "",
        eta_seconds=max(0, round(eta)) if eta is not None else 0,
        eta=in_words(eta) if eta is not None else "",
        message=line.message[:1024],
        updated_at=updated_at,
        stale=seconds_since(updated_at, now) > SILENT_SECONDS,
    )


def started(before: Progress | None, stage: Stage, now: datetime) -> Progress:
    """A stage that has said nothing yet. The loss of training stays in view while later stages run."""
    return Progress(stage=stage, loss=before.loss if before else "", updated_at=to_rfc3339(now))


def without_estimate(progress: Progress | None) -> Progress | None:
    """The same when nothing runs any more."""
    if progress is None:
        return None
    return progress.model_copy(update={"eta": "", "eta_seconds": 0, "stale": False})
