"""FineTuneSchedule's spec: when a new run is made, and from what. The thing to keep in Git.

Must not know how runs are made. Everything may be changed at any time; a change of the template counts for later runs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from finetune_contract.field_errors import field_error
from finetune_contract.model import ContractModel
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.text_forms import text_form


class ConcurrencyPolicy(StrEnum):
    """What becomes of a run that is due while an earlier one is under way."""

    FORBID = "Forbid"
    REPLACE = "Replace"
    ALLOW = "Allow"


class ContentTriggerSpec(ContractModel):
    """Retrain when the posts have changed. A look costs a dataset stage on a CPU; it asks the site for changes only."""

    min_changed_posts: Annotated[int, Field(ge=1, le=1_000_000)] = 25
    """So many documents must have come, gone or changed since the model before was trained."""
    debounce_seconds: Annotated[int, Field(ge=0, le=604_800)] = 1800
    """And nothing more may have changed for so long, so that a day of editing makes one model and not ten."""
    max_wait_seconds: Annotated[int, Field(ge=0, le=31_536_000)] = 2_592_000
    """A change waits at most so long, however few there are and however busy the editors; 0 waits as long as it
    takes."""
    check_every_seconds: Annotated[int, Field(ge=60, le=604_800)] = 3600
    """How often the documents are looked at."""


class HistorySpec(ContractModel):
    """How many of its ended runs are kept. Models stay in the store."""

    succeeded: Annotated[int, Field(ge=1, le=100)] = 3
    """Runs that succeeded, or ended Unchanged. The newest that succeeded always stays: it stands for the live model."""
    failed: Annotated[int, Field(ge=0, le=100)] = 3
    """Runs that ended otherwise."""


class RunTemplateMetadata(ContractModel):
    """Put on each run."""

    labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)] = {}
    """Labels."""
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=16)] = {}
    """Annotations."""


class RunTemplate(ContractModel):
    """A FineTuneRun but for its name."""

    metadata: RunTemplateMetadata = RunTemplateMetadata()
    """Labels and annotations."""
    spec: FineTuneRunSpec
    """As in a FineTuneRun, without `compareWith`, which the schedule fills in."""

    @model_validator(mode="after")
    def _leaves_comparing_to_the_schedule(self) -> Self:
        if self.spec.compare_with is not None:
            raise field_error("spec.compareWith", "is filled in by the schedule", "leave it out")
        if self.spec.cancel:
            raise field_error(
                "spec.cancel", "would end each run at once", "leave it out, or suspend the schedule"
            )
        return self


class FineTuneScheduleSpec(ContractModel):
    """Train again at fixed times, when the posts have changed, or when Git says so."""

    cron: (
        Annotated[
            str,
            text_form(
                r"^\S+( +\S+){4}$", "write five fields as in a crontab, such as 0 3 * * 1", longest=120
            ),
        ]
        | None
    ) = None
    """Minute, hour, day of the month, month, day of the week. A run that comes to the model before ends Unchanged."""
    time_zone: Annotated[
        str,
        text_form(
            r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$",
            "write a name of the IANA database, such as Europe/Berlin",
            longest=64,
        ),
    ] = "Etc/UTC"
    """Time zone of `cron`. Where clocks are put forward, what falls into the hour that is left out runs right after it;
    where they are put back, what falls into the hour that comes twice runs once, unless `cron` names every hour."""
    suspend: bool = False
    """Make no new runs; those that are under way go on."""
    concurrency_policy: ConcurrencyPolicy = ConcurrencyPolicy.FORBID
    """Forbid lets a run wait until the one before has ended, Replace cancels that one, Allow starts it beside it."""
    starting_deadline_seconds: Annotated[int, Field(ge=10, le=31_536_000)] | None = None
    """A time of `cron` that has passed by more than this is left out. Without it, the newest one that was missed is
    made up for, once."""
    revision: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Any text. Whenever it changes a run is made: retraining by commit. Such a run rolls out its model even when it is
    the one before."""
    on_content_change: ContentTriggerSpec | None = None
    """Train when the posts have changed; the first model at once."""
    history: HistorySpec = HistorySpec()
    """How many of its ended runs are kept."""
    template: RunTemplate
    """What is run."""

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.cron is None and self.revision is None and self.on_content_change is None:
            raise field_error(
                "",
                "says nothing about when to train",
                "set cron, onContentChange or revision, or several of them",
            )
        return self
