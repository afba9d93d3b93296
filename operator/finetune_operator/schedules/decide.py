"""When a schedule makes a run, and which of its runs go. Pure: what is seen goes in, status and actions come out.

Called twice with the same facts it decides the same: the name of a run follows from what it is made for and from the
status, and a run that is there is not made again. It knows no clock, no client and no logger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from finetune_contract.run_status import Phase
from finetune_contract.schedule_spec import ConcurrencyPolicy, ContentTriggerSpec
from finetune_contract.schedule_status import (
    Cause,
    ContentStatus,
    FineTuneScheduleStatus,
    FinishedWork,
    LastRun,
    ScheduleReason,
)
from finetune_operator.outlook import OVER
from finetune_operator.schedules.observed import (
    CancelRun,
    ChildRun,
    DeleteRun,
    Schedule,
    ScheduleAction,
    ScheduleDecision,
)
from finetune_operator.schedules.run_manifest import run_for, run_name, short_hash
from finetune_operator.schedules.ticks import InvalidCron, Ticks
from finetune_operator.schedules.words import in_words, stalled_words, with_conditions
from finetune_operator.timestamps import from_rfc3339, seconds_since, to_rfc3339

LONGEST_WAIT_SECONDS = 3600.0
"""Clocks are set now and then: a schedule is looked at this often whatever it waits for."""
SOONEST_CHECK_SECONDS = 60.0
WELL = frozenset({Phase.SUCCEEDED, Phase.UNCHANGED})
MOST_ACTIVE = 16
"""Shown in the status."""


@dataclass(frozen=True)
class Due:
    """A run that is to be made."""

    cause: Cause
    name: str


def decide(schedule: Schedule, children: Sequence[ChildRun], now: datetime) -> ScheduleDecision:
    """The schedule's next status and actions."""
    spec = schedule.spec
    children = sorted(children, key=lambda child: child.age)
    status = _absorbed(schedule, children)
    gone = _beyond_history(schedule, children)
    try:
        ticks = Ticks(spec.cron, spec.time_zone) if spec.cron is not None else None
    except InvalidCron as error:
        status = with_conditions(status, schedule.generation, ScheduleReason.INVALID_SPEC, str(error), now)
        return ScheduleDecision(status, gone)
    seen = replace(schedule, status=status)
    status = status.model_copy(update=_times(seen, ticks, children, now) | _clock_as_set(seen, now))
    seen = replace(schedule, status=status)
    due = _due(seen, schedule.status.last_run, ticks, children, now)
    actions, made, waits = _begin(seen, due, children, now)
    if made is not None:
        status = _noted(seen, made, ticks, children, now)
    stalled = stalled_words(children)
    reason = ScheduleReason.WAITING
    if spec.suspend:
        reason = ScheduleReason.SUSPENDED
    elif stalled:
        reason = ScheduleReason.RUN_STALLED
    elif status.active or made is not None:
        reason = ScheduleReason.RUN_UNDER_WAY
    words = stalled or waits or in_words(replace(schedule, status=status))
    status = with_conditions(status, schedule.generation, reason, words, now)
    return ScheduleDecision(status, (*actions, *gone), _look_again(replace(schedule, status=status), now))


def _absorbed(schedule: Schedule, children: Sequence[ChildRun]) -> FineTuneScheduleStatus:
    """What the runs that are there tell; what was known of those that are gone stays."""
    before = schedule.status
    may_train = [child for child in children if not child.is_check]
    changes: dict[str, object] = {
        "active": [child.name for child in children if not child.over][:MOST_ACTIVE],
    }
    if may_train and not _outlived(before.last_run, may_train):
        newest = may_train[-1]
        changes["last_run"] = LastRun(
            name=newest.name, cause=newest.cause, made_at=newest.created_at, phase=newest.phase
        )
    live = _newest(before.live, (c for c in may_train if c.phase is Phase.SUCCEEDED and c.run_key))
    changes["live"] = live
    ended = (c for c in may_train if c.over and c.phase is not Phase.UNCHANGED and c.dataset_digest)
    changes["tried"] = _newest(before.tried, ended)
    changes["content"] = _changes(before, live, children)
    return before.model_copy(update=changes)


def _outlived(last: LastRun | None, children: Sequence[ChildRun]) -> bool:
    """The newest run ended and is gone, and those that are left were made before it."""
    if last is None or last.phase not in OVER or last.name in {child.name for child in children}:
        return False
    return last.made_at > children[-1].created_at


def _changes(
    before: FineTuneScheduleStatus, live: FinishedWork | None, children: Sequence[ChildRun]
) -> ContentStatus | None:
    """What is known of the documents. A run that has ended since the last check leaves nothing of it but since when a
    change waits: whatever came of the run, the documents are looked at again before another one is made for them.
    """
    ended = [child.created_at for child in children if child.over and not child.is_check]
    since = max([*ended, live.made_at if live is not None else ""])
    content = before.content if live == before.live else None
    if content is not None and content.checked_at and content.checked_at <= since:
        content = ContentStatus(changed_since=content.changed_since)
    checks = [child for child in children if child.is_check and child.over]
    if checks and checks[-1].created_at > since:
        return _content(content, checks[-1])
    return content


def _newest(known: FinishedWork | None, children: Iterable[ChildRun]) -> FinishedWork | None:
    """The newest of them, or what is known where that is newer."""
    newest = max(children, key=lambda child: child.age, default=None)
    if newest is None or (known is not None and known.made_at > newest.created_at):
        return known
    return FinishedWork(
        run=newest.name,
        made_at=newest.created_at,
        run_key=newest.run_key,
        dataset_digest=newest.dataset_digest,
        phase=newest.phase,
    )


def _content(before: ContentStatus | None, check: ChildRun) -> ContentStatus:
    """What a check has found, after what the one before had."""
    known = before or ContentStatus()
    if known.check == check.name:
        return known
    if not check.dataset_digest or check.phase not in WELL:
        return known.model_copy(update={"check": check.name, "checked_at": check.completed_at})
    changed = check.changed_posts or 0
    same = known.dataset_digest == check.dataset_digest
    return ContentStatus(
        check=check.name,
        checked_at=check.completed_at,
        dataset_digest=check.dataset_digest,
        changed_posts=changed,
        changed_since=(known.changed_since or check.completed_at) if changed else "",
        quiet_since=known.quiet_since if same else check.completed_at,
    )


def _times(
    schedule: Schedule, ticks: Ticks | None, children: Sequence[ChildRun], now: datetime
) -> dict[str, object]:
    """When what happens next."""
    following = ticks.after(now) if ticks is not None and not schedule.spec.suspend else None
    check = _next_check(schedule, children) if not schedule.spec.suspend else None
    return {
        "next_schedule_time": to_rfc3339(following) if following is not None else "",
        "next_check_time": to_rfc3339(check) if check is not None else "",
    }


def _clock_as_set(schedule: Schedule, now: datetime) -> dict[str, object]:
    """What the clock is set to, and since when. One that is set anew has not missed anything yet."""
    spec, status = schedule.spec, schedule.status
    cron = f"{spec.cron} {spec.time_zone}" if spec.cron is not None else ""
    if cron == status.cron:
        return {}
    is_new = status.observed_generation < 0
    return {"cron": cron, "cron_since": schedule.created_at if is_new else to_rfc3339(now)}


def _next_check(schedule: Schedule, children: Sequence[ChildRun]) -> datetime | None:
    """When the documents are looked at next, or the first training is tried again; None before the first."""
    trigger, status = schedule.spec.on_content_change, schedule.status
    if trigger is None or status.last_run is None:
        return None
    content = status.content
    if content is not None and (looked := from_rfc3339(content.checked_at)) is not None:
        return looked + timedelta(seconds=_seconds_to_check(trigger, content))
    ended = [child.completed_at for child in children if child.over and not child.is_check]
    since = from_rfc3339(max(ended, default="")) or from_rfc3339(schedule.created_at)
    return since + timedelta(seconds=trigger.check_every_seconds) if since is not None else None


def _seconds_to_check(trigger: ContentTriggerSpec, content: ContentStatus) -> float:
    """A change that is large enough is looked at again as soon as it may have come to rest."""
    every = float(trigger.check_every_seconds)
    if content.changed_posts < trigger.min_changed_posts:
        return every
    return min(every, max(SOONEST_CHECK_SECONDS, float(trigger.debounce_seconds)))


def _compared(status: FineTuneScheduleStatus) -> FinishedWork | None:
    """What documents are compared with: what the live model learnt, or else what was tried."""
    return status.live or status.tried


def _due(
    schedule: Schedule,
    recorded: LastRun | None,
    ticks: Ticks | None,
    children: Sequence[ChildRun],
    now: datetime,
) -> Due | None:
    """The run that is to be made now. Git goes before the clock, and the clock before the posts.

    Args:
        recorded: the newest run as it was written down. A run that was made after that, by an operator that died before
            it wrote, was made for the same, and so has the same name.
    """

    def due(cause: Cause, what: str) -> Due:
        return Due(cause, run_name(schedule, cause, what))

    spec, status = schedule.spec, schedule.status
    if spec.suspend or schedule.deleting:
        return None
    last = recorded.name if recorded is not None else ""
    if spec.revision is not None and spec.revision != status.revision:
        return due(Cause.REVISION, short_hash(spec.revision, status.revision, last))
    tick = _tick(schedule, ticks, now)
    if tick is not None:
        return due(Cause.CRON, str(int(tick.timestamp()) // 60))
    trigger = spec.on_content_change
    if trigger is None:
        return None
    if recorded is None:
        return due(Cause.CONTENT, short_hash("first", schedule.uid))
    if status.content is not None and _is_ripe(trigger, status, now):
        return due(Cause.CONTENT, short_hash(status.content.dataset_digest, last))
    time = from_rfc3339(status.next_check_time)
    if time is None or time > now or any(not child.over for child in children):
        return None
    if _compared(status) is None:  # no run has come as far as its dataset
        return due(Cause.CONTENT, short_hash("first", schedule.uid, last))
    return due(Cause.CHECK, str(int(time.timestamp()) // 60))


def _tick(schedule: Schedule, ticks: Ticks | None, now: datetime) -> datetime | None:
    """The newest time of `cron` for which no run was made, if it is not too late for it."""
    if ticks is None:
        return None
    since = from_rfc3339(max(schedule.status.last_schedule_time, schedule.status.cron_since))
    tick = ticks.newest_between(since, now) if since is not None else None
    limit = schedule.spec.starting_deadline_seconds
    if tick is None or (limit is not None and (now - tick).total_seconds() > limit):
        return None
    return tick


def _is_ripe(trigger: ContentTriggerSpec, status: FineTuneScheduleStatus, now: datetime) -> bool:
    """Enough has changed and has come to rest, or a change has waited long enough."""
    content = status.content
    if content is None or not content.changed_posts or not content.dataset_digest:
        return False
    if status.tried is not None and status.tried.dataset_digest == content.dataset_digest:
        return False
    looked, quiet = from_rfc3339(content.checked_at), from_rfc3339(content.quiet_since)
    rest = (looked - quiet).total_seconds() if looked is not None and quiet is not None else 0.0
    if content.changed_posts >= trigger.min_changed_posts and rest >= trigger.debounce_seconds:
        return True
    longest = trigger.max_wait_seconds
    return bool(longest) and seconds_since(content.changed_since, now) >= longest


def _begin(
    schedule: Schedule, due: Due | None, children: Sequence[ChildRun], now: datetime
) -> tuple[tuple[ScheduleAction, ...], Due | None, str]:
    """Actions, what is made by them, and what it waits for in words."""
    if due is None:
        return (), None, ""
    there = due.name in {child.name for child in children}
    others = [child for child in children if not child.over and child.name != due.name]
    policy = schedule.spec.concurrency_policy
    if (
        not there
        and others
        and not (policy is ConcurrencyPolicy.ALLOW and not any(child.is_check for child in others))
    ):
        told = [child for child in others if child.is_check or policy is ConcurrencyPolicy.REPLACE]
        cancels = tuple(CancelRun(child.name) for child in told if not child.cancelled and not child.deleting)
        names = ", ".join(child.name for child in others)
        return cancels, None, f"a run is due ({due.cause.value}) and waits until {names} has ended"
    actions = () if there else (run_for(schedule, due.name, due.cause),)
    return actions, due, ""


def _noted(
    schedule: Schedule, made: Due, ticks: Ticks | None, children: Sequence[ChildRun], now: datetime
) -> FineTuneScheduleStatus:
    """One run answers all that was due."""
    new = () if made.name in {child.name for child in children} else (made.name,)
    active = [*schedule.status.active, *new][:MOST_ACTIVE]
    if made.cause is Cause.CHECK:
        return schedule.status.model_copy(update={"active": active})
    tick = _tick(schedule, ticks, now)
    known = schedule.status.last_run
    changes: dict[str, object] = {
        "active": active,
        "revision": schedule.spec.revision or "",
        "last_schedule_time": to_rfc3339(tick) if tick is not None else schedule.status.last_schedule_time,
    }
    if known is None or known.name != made.name:
        changes["last_run"] = LastRun(name=made.name, cause=made.cause, made_at=to_rfc3339(now))
    return schedule.status.model_copy(update=changes)


def _beyond_history(schedule: Schedule, children: Sequence[ChildRun]) -> tuple[DeleteRun, ...]:
    """Ended runs that are too many. The newest that succeeded stands for the live model."""
    history = schedule.spec.history
    ended = [child for child in children if child.over]
    newest_live = [child for child in ended if not child.is_check and child.phase is Phase.SUCCEEDED][-1:]
    checks = [child for child in ended if child.is_check]
    well = [child for child in ended if not child.is_check and child.phase in WELL]
    badly = [child for child in ended if not child.is_check and child.phase not in WELL]
    too_many = [
        *_but_last(checks, 1),
        *_but_last(well, history.succeeded),
        *_but_last(badly, history.failed),
    ]
    return tuple(
        DeleteRun(child.name, child.uid)
        for child in too_many
        if child not in newest_live and not child.deleting
    )


def _but_last(children: list[ChildRun], count: int) -> list[ChildRun]:
    return children[: max(0, len(children) - count)]


def _look_again(schedule: Schedule, now: datetime) -> float | None:
    """Seconds until time alone changes what is decided."""
    spec, status = schedule.spec, schedule.status
    if spec.suspend:
        return None
    moments = [from_rfc3339(status.next_schedule_time)]
    if not status.active:
        moments.append(from_rfc3339(status.next_check_time))
    content, trigger = status.content, spec.on_content_change
    changed = from_rfc3339(content.changed_since) if content is not None else None
    if changed is not None and trigger is not None and trigger.max_wait_seconds:
        moments.append(changed + timedelta(seconds=trigger.max_wait_seconds))
    waits = [(moment - now).total_seconds() for moment in moments if moment is not None and moment > now]
    return min([*(wait + 0.5 for wait in waits), LONGEST_WAIT_SECONDS])
