"""FineTuneSchedule's status: what was made, what is live, what has changed since. Must not know how it is found out."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_contract.model import ContractModel
from finetune_contract.run_status import Condition, Phase, Text


class Cause(StrEnum):
    """Why a run was made."""

    CRON = "Cron"
    REVISION = "Revision"
    CONTENT = "ContentChange"
    CHECK = "Check"


class ScheduleReason(StrEnum):
    """Words of a schedule's conditions."""

    WAITING = "Waiting"
    RUN_UNDER_WAY = "RunUnderWay"
    RUN_STALLED = "RunStalled"
    SUSPENDED = "Suspended"
    INVALID_SPEC = "InvalidSpec"
    REFUSED = "Refused"


class FinishedWork(ContractModel):
    """What a run came to."""

    run: Text
    """Its name."""
    made_at: Text = ""
    """When it was made (RFC 3339, UTC)."""
    run_key: Text = ""
    """Its `status.runKey`."""
    dataset_digest: Text = ""
    """Its `status.dataset.digest`."""
    phase: Phase | None = None
    """How it ended."""


class LastRun(ContractModel):
    """The newest run that may train."""

    name: Text
    """Its name."""
    cause: Cause
    """Why it was made."""
    made_at: Text = ""
    """When (RFC 3339, UTC)."""
    phase: Phase | None = None
    """Where it is, or how it ended."""


class ContentStatus(ContractModel):
    """How the documents differ from those that the live model learnt."""

    check: Text = ""
    """The run that looked last."""
    checked_at: Text = ""
    """When it ended (RFC 3339, UTC)."""
    dataset_digest: Text = ""
    """What it found; empty when it failed."""
    changed_posts: int = 0
    """Documents that came, went or changed."""
    changed_since: Text = ""
    """When a change was first seen (RFC 3339, UTC); empty while there is none."""
    quiet_since: Text = ""
    """Since when the documents are as they are now (RFC 3339, UTC)."""


class FineTuneScheduleStatus(ContractModel):
    """What is so."""

    observed_generation: int = -1
    """Generation of the spec that this status speaks of; -1 before the first look."""
    conditions: Annotated[list[Condition], Field(max_length=8)] = []
    """Ready, Reconciling and Stalled as in kstatus."""
    active: Annotated[list[Text], Field(max_length=16)] = []
    """Runs that are under way."""
    last_run: LastRun | None = None
    """The newest run that may train."""
    live: FinishedWork | None = None
    """The newest of its runs that succeeded: what later ones are compared with."""
    tried: FinishedWork | None = None
    """The newest of its runs that knew its dataset and has ended: the same content does not start another by itself."""
    content: ContentStatus | None = None
    """What has changed since."""
    revision: Text = ""
    """`spec.revision` that a run was made for."""
    last_schedule_time: Text = ""
    """The time of `cron` that a run was made for (RFC 3339, UTC)."""
    cron: Text = ""
    """`spec.cron` and its time zone, as they were seen last."""
    cron_since: Text = ""
    """Since when they are so (RFC 3339, UTC): no earlier time of them is made up for."""
    next_schedule_time: Text = ""
    """The next time of `cron` (RFC 3339, UTC)."""
    next_check_time: Text = ""
    """When the documents are looked at next (RFC 3339, UTC)."""
