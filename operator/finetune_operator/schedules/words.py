"""What a schedule says of itself: its conditions, and what it waits for. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from finetune_contract.run_status import ConditionType
from finetune_contract.schedule_status import FineTuneScheduleStatus, ScheduleReason
from finetune_operator.conditions import false, merged, true
from finetune_operator.schedules.observed import ChildRun, Schedule

TROUBLE = frozenset({ScheduleReason.INVALID_SPEC, ScheduleReason.REFUSED, ScheduleReason.RUN_STALLED})
MAX_MESSAGE_LENGTH = 1024


def with_conditions(
    status: FineTuneScheduleStatus,
    generation: int,
    reason: ScheduleReason,
    message: str,
    now: datetime,
) -> FineTuneScheduleStatus:
    """The status with the conditions of the spec's generation: Ready unless a person must act."""
    words, bad = message[:MAX_MESSAGE_LENGTH], reason in TROUBLE
    wanted = (
        (false if bad else true)(ConditionType.READY, reason, words),
        false(ConditionType.RECONCILING, reason),
        (true if bad else false)(ConditionType.STALLED, reason, words if bad else ""),
    )
    conditions = merged(status.conditions, wanted, generation, now)
    return status.model_copy(update={"observed_generation": generation, "conditions": conditions})


def stalled_words(children: Iterable[ChildRun]) -> str:
    """Which run under way waits for a person, and for what; empty when none does."""
    stalled = next((child for child in children if child.stalled and not child.over), None)
    return f"{stalled.name} waits for a person: {stalled.stalled}" if stalled is not None else ""


def in_words(schedule: Schedule) -> str:
    """What is under way, what is live, what has changed, and what comes next."""
    spec, status = schedule.spec, schedule.status
    said: list[str] = []
    if spec.suspend:
        said.append("suspended; set spec.suspend to false to make runs again")
    if status.active:
        said.append(f"under way: {', '.join(status.active)}")
    if status.live is not None:
        said.append(f"the newest model is that of {status.live.run}")
    said += _changes(schedule)
    if status.next_schedule_time:
        said.append(f"next time of cron {status.next_schedule_time}")
    elif spec.cron is not None and not spec.suspend:
        said.append("spec.cron names no time that comes again")
    if status.next_check_time and not status.active:
        said.append(f"next look at the posts {status.next_check_time}")
    return "; ".join(said) or "waits for another spec.revision"


def _changes(schedule: Schedule) -> list[str]:
    trigger, content = schedule.spec.on_content_change, schedule.status.content
    if trigger is None or content is None:
        return []
    if not content.check:
        return []
    if not content.dataset_digest:
        return [f"the last look failed: kubectl describe finetunerun {content.check}"]
    tried = schedule.status.tried
    if content.changed_posts and tried is not None and tried.dataset_digest == content.dataset_digest:
        return [
            f"{content.changed_posts} posts have changed, and {tried.run} was trained on them and ended {tried.phase}; "
            "another change, the next time of cron or another spec.revision tries again"
        ]
    return [f"{content.changed_posts} of {trigger.min_changed_posts} posts have changed"]
