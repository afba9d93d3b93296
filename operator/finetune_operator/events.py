"""Kubernetes Events on transitions: told once, when a condition's status or reason changes. Pure.

What goes to and fro, such as a target that comes and goes, changes with each look: `Repeats` keeps that down.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_contract.run_status import ConditionType, FineTuneRunStatus, Reason, RolloutPhase
from finetune_operator.api_group import FIELD_MANAGER
from finetune_operator.rollout.keeping import uids_when_live

MAX_MESSAGE_LENGTH = 1024
SAME_AGAIN = timedelta(minutes=10)
"""The same words about a run are told once in this time."""
WINDOW = timedelta(hours=1)
MOST_OF_A_REASON = 10
"""Events of one reason about one run within the window, whatever their words."""
MOST_REMEMBERED = 4096
"""Reasons of runs; of more, those that were told longest ago are forgotten."""
_QUIET_REASONS = frozenset({Reason.WAITING})
_AS_WISHED = frozenset(
    {
        Reason.ROLLOUT_NOT_ASKED,
        Reason.TRAINING_NOT_ASKED,
        Reason.UNCHANGED,
        Reason.SUPERSEDED,
        Reason.PUBLISHED,
    }
)
_TOLD = (
    ConditionType.DATASET_READY,
    ConditionType.TRAINED,
    ConditionType.PACKAGED,
    ConditionType.EVALUATED,
    ConditionType.ROLLED_OUT,
)


@dataclass(frozen=True)
class RunEvent:
    """What `kubectl describe` will list."""

    reason: str
    message: str
    warning: bool = False


def event_body(place: Mapping[str, str], event: RunEvent, now: str) -> dict[str, object]:
    """An Event of Kubernetes about the object that `place` refers to."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{place['name']}.", "namespace": place["namespace"]},
        "involvedObject": dict(place),
        "reason": event.reason,
        "message": event.message,
        "type": "Warning" if event.warning else "Normal",
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def transitions(before: FineTuneRunStatus, after: FineTuneRunStatus) -> tuple[RunEvent, ...]:
    """What changed between two statuses, in words."""
    old = {condition.type: condition for condition in before.conditions}
    new = {condition.type: condition for condition in after.conditions}
    events: list[RunEvent] = []
    for kind in _TOLD:
        condition, known = new.get(kind), old.get(kind)
        if condition is None or condition.reason in _QUIET_REASONS:
            continue
        if known is not None and (known.status, known.reason) == (condition.status, condition.reason):
            continue
        words = f"{kind.value}: {condition.message}" if condition.message else kind.value
        warning = condition.status == "False" and condition.reason not in _AS_WISHED
        events.append(RunEvent(condition.reason, words[:MAX_MESSAGE_LENGTH], warning))
    stalled, was = new.get(ConditionType.STALLED), old.get(ConditionType.STALLED)
    if (
        stalled is not None
        and stalled.status == "True"
        and (was is None or (was.status, was.reason) != (stalled.status, stalled.reason))
        and not any(event.reason == stalled.reason for event in events)
    ):
        events.append(RunEvent(stalled.reason, stalled.message[:MAX_MESSAGE_LENGTH], True))
    ready, was = new.get(ConditionType.READY), old.get(ConditionType.READY)
    if ready is not None and ready.status == "True" and (was is None or was.status != "True"):
        events.append(RunEvent("Ready", ready.message[:MAX_MESSAGE_LENGTH]))
    return (*events, *_given_back(before, after))


def _given_back(before: FineTuneRunStatus, after: FineTuneRunStatus) -> tuple[RunEvent, ...]:
    """Targets that somebody made anew have the run's model again."""
    was, now = before.rollout, after.rollout
    if was is None or now is None or {was.phase, now.phase} != {RolloutPhase.SUCCEEDED}:
        return ()
    if now.current is None:
        return ()
    known, model = uids_when_live(was), now.current.model_id
    return tuple(
        RunEvent(
            "ModelReasserted", f"deployment/{name} was made anew without a model; {model} was put in again"
        )
        for name, uid in uids_when_live(now).items()
        if known.get(name) != uid
    )


class Repeats:
    """What was told lately: the same again is held back, and so is too much of one reason.

    Each reason of each run has its own bound, so that what repeats never hides what is new.
    """

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, str], tuple[tuple[datetime, int], ...]] = OrderedDict()
        """By uid and reason: when, and the hash of the words."""

    def __len__(self) -> int:
        return len(self._told)

    def kept_down(self, uid: str, events: Iterable[RunEvent], now: datetime) -> tuple[RunEvent, ...]:
        """Those of a run's events that are to be told."""
        return tuple(event for event in events if self._is_news(uid, event, now))

    def _is_news(self, uid: str, event: RunEvent, now: datetime) -> bool:
        place, words = (uid, event.reason), hash(event.message)
        lately = tuple(entry for entry in self._told.get(place, ()) if now - entry[0] < WINDOW)
        same = any(known == words and now - moment < SAME_AGAIN for moment, known in lately)
        if same or len(lately) >= MOST_OF_A_REASON:
            return False
        self._told[place] = (*lately, (now, words))
        self._told.move_to_end(place)
        while len(self._told) > MOST_REMEMBERED:
            self._told.popitem(last=False)
        return True
