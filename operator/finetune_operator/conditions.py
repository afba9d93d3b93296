"""Building conditions so that they read well in kubectl, kstatus, Argo CD and Flux. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_contract.run_status import Condition, ConditionStatus, ConditionType, Reason
from finetune_contract.schedule_status import ScheduleReason
from finetune_operator.timestamps import to_rfc3339

MAX_MESSAGE_LENGTH = 4096
AnyReason = Reason | ScheduleReason


@dataclass(frozen=True)
class Wanted:
    """What a condition should say."""

    type: ConditionType
    status: ConditionStatus
    reason: AnyReason
    message: str = ""


def true(kind: ConditionType, reason: AnyReason, message: str = "") -> Wanted:
    """It is so."""
    return Wanted(kind, ConditionStatus.TRUE, reason, message)


def false(kind: ConditionType, reason: AnyReason, message: str = "") -> Wanted:
    """It is not so."""
    return Wanted(kind, ConditionStatus.FALSE, reason, message)


def unknown(kind: ConditionType, reason: AnyReason, message: str = "") -> Wanted:
    """It is not known yet."""
    return Wanted(kind, ConditionStatus.UNKNOWN, reason, message)


def merged(
    before: Sequence[Condition], wanted: Iterable[Wanted], generation: int, now: datetime
) -> list[Condition]:
    """All conditions in the order of ConditionType, each said about `generation`.

    `lastTransitionTime` moves only when a status changes. What is not in `wanted` stays as it was.
    """
    old = {condition.type: condition for condition in before}
    new = {condition.type.value: condition for condition in wanted}
    result: list[Condition] = []
    for kind in ConditionType:
        known, want = old.get(kind.value), new.get(kind.value)
        if want is None:
            if known is not None:
                result.append(known.model_copy(update={"observed_generation": generation}))
            continue
        unchanged = known is not None and known.status == want.status
        since = known.last_transition_time if known is not None and unchanged else to_rfc3339(now)
        result.append(
            Condition(
                type=want.type.value,
                status=want.status,
                reason=want.reason.value,
                message=want.message[:MAX_MESSAGE_LENGTH],
                observed_generation=generation,
                last_transition_time=since,
            )
        )
    return result
