"""A schedule and its runs as they were read, and what is done about them: frozen values. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from finetune_contract.run_status import Phase
from finetune_contract.schedule_spec import FineTuneScheduleSpec
from finetune_contract.schedule_status import Cause, FineTuneScheduleStatus
from finetune_operator.observed import RunKey
from finetune_operator.outlook import OVER


@dataclass(frozen=True)
class Schedule:
    """A FineTuneSchedule."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created_at: str
    spec: FineTuneScheduleSpec
    template: dict[str, Any] = field(hash=False)
    """`spec.template` as it was written."""
    status: FineTuneScheduleStatus
    deleting: bool = False

    @property
    def key(self) -> RunKey:
        """Where it lies."""
        return RunKey(self.namespace, self.name)


@dataclass(frozen=True)
class ChildRun:
    """A run that a schedule made."""

    name: str
    uid: str
    cause: Cause
    created_at: str
    phase: Phase | None = None
    completed_at: str = ""
    run_key: str = ""
    dataset_digest: str = ""
    changed_posts: int | None = None
    cancelled: bool = False
    """It was told to end."""
    deleting: bool = False
    stalled: str = ""
    """What a person must do before it goes on; empty while it needs nobody."""

    @property
    def over(self) -> bool:
        """It has ended."""
        return self.phase in OVER

    @property
    def is_check(self) -> bool:
        """It only looks how the documents have changed."""
        return self.cause is Cause.CHECK

    @property
    def age(self) -> tuple[str, str]:
        """Runs in the order in which they were made."""
        return self.created_at, self.name


@dataclass(frozen=True)
class CreateRun:
    """Make a run. Twice is the same as once."""

    name: str
    manifest: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class CancelRun:
    """Tell a run to end."""

    name: str


@dataclass(frozen=True)
class DeleteRun:
    """Remove an ended run; its model stays in the store."""

    name: str
    uid: str


ScheduleAction = CreateRun | CancelRun | DeleteRun


@dataclass(frozen=True)
class ScheduleDecision:
    """What to do, what to say, and when to look again."""

    status: FineTuneScheduleStatus
    actions: tuple[ScheduleAction, ...] = ()
    requeue_after: float | None = None
