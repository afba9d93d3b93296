"""Where a run is and what comes next, before it is put into the words of a status. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from finetune_contract.run_status import ENDED_PHASES, Phase, Reason, RolloutStatus
from finetune_operator.actions import Action
from finetune_operator.conditions import Wanted

RUNNING_SECONDS = 5.0
"""How often the log of a running stage is read."""
WAITING_SECONDS = 15.0
"""How often something is looked at that an event tells of, and that time alone may change as well."""
QUEUED_SECONDS = 60.0
"""How often a Job is looked at that waits for its place: an event lets it go on, and there may be thousands."""
STOPPING_SECONDS = 3.0
REFUSED_SECONDS = 60.0


class Unhurried(float):
    """Seconds until a look for progress and for limits of time: with many runs it may come later."""


OVER = ENDED_PHASES


class Mood(Enum):
    """What kstatus should think of the run."""

    WORKING = auto()
    """Reconciling."""
    NEEDS_PERSON = auto()
    """Stalled, but not for good: it goes on when the obstacle is gone."""
    PAUSED = auto()
    """Neither: the user asked for it."""
    SUCCEEDED = auto()
    FAILED = auto()


@dataclass(frozen=True)
class Outlook:
    """Where the run is, before it is put into the words of a status."""

    phase: Phase
    mood: Mood
    reason: Reason
    message: str
    conditions: tuple[Wanted, ...] = ()
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    rollout: RolloutStatus | None = None
