"""Which runs' folders may go, and why each other one stays. Pure.

A folder is marked when it is first seen to be garbage, and goes only when it still is after a grace time: so a model
that was made after the list of protected ones is safe. A folder whose deletion has begun is marked as such, for
half of a model looks like one that is just being stored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from finetune_contract.protected_models import ProtectedModels

DEFAULT_KEEP_PREVIOUS = 3
DEFAULT_GRACE = timedelta(days=2)
LARGEST_AGE = timedelta(hours=1)
"""Of the list by which models are deleted."""


class Fate(StrEnum):
    """What becomes of a folder."""

    KEEP = "keep"
    MARK = "mark"
    """Garbage, not yet for long enough."""
    DELETE = "delete"
    FINISH = "finish"
    """A deletion that broke off."""


@dataclass(frozen=True)
class StoredRun:
    """A run's folder in the store."""

    run_key: str
    digest: str
    """sha256 of the model's manifest; empty when no whole model is there."""
    bytes: int = 0
    """Size of the model."""


@dataclass(frozen=True)
class Mark:
    """What an earlier sweep wrote down about a folder."""

    since: datetime
    """When it was first seen to be garbage."""
    deleting: bool = False


@dataclass(frozen=True)
class Verdict:
    """The fate of one folder."""

    run: StoredRun
    fate: Fate
    why: str


def check_age(protected: ProtectedModels, now: datetime) -> None:
    """A run may take up a model that it finds in the store after the list was made.

    Raises:
        ValueError: the list is too old to delete by.
    """
    remedy = "make it anew with `python -m finetune_operator.protected_models`, right before --delete"
    if protected.made_at is None:
        raise ValueError(f"the list of protected models does not say when it was made; {remedy}")
    if abs(now - protected.made_at) > LARGEST_AGE:
        raise ValueError(
            f"the list of protected models was made at {protected.made_at}, more than {LARGEST_AGE} from now: a run "
            f"may have taken up one of the others since; {remedy}"
        )


def plan(
    stored: Sequence[StoredRun],
    protected: ProtectedModels,
    marks: Mapping[str, Mark],
    now: datetime,
    keep_previous: int = DEFAULT_KEEP_PREVIOUS,
    grace: timedelta = DEFAULT_GRACE,
) -> tuple[Verdict, ...]:
    """The fate of every folder, in the order in which they came.

    Args:
        keep_previous: models that were live before the current one, for each target.

    Raises:
        ValueError: nothing at all is protected, or a number is negative.
    """
    if protected.names_nothing:
        raise ValueError("the list of protected models is empty: everything would go; check how it was made")
    if keep_previous < 0 or grace < timedelta():
        raise ValueError(f"keep {keep_previous} previous models and wait {grace}: neither may be negative")
    reasons = _reasons(protected, keep_previous)
    return tuple(
        _judge(run, reasons, protected.active_run_keys, marks.get(run.run_key), now, grace) for run in stored
    )


def _reasons(protected: ProtectedModels, keep_previous: int) -> dict[str, str]:
    """Why a digest stays; the strongest reason wins."""
    reasons: dict[str, str] = {}
    for target, digests in protected.history.items():
        for number, digest in enumerate(digests[1 : 1 + keep_previous], start=1):
            reasons[digest] = f"previous model {number} of {target}"
    reasons |= dict.fromkeys(protected.candidates, "a candidate: its run is there, and it is not live")
    reasons |= dict.fromkeys(protected.live, "pinned by a ReplicaSet or Deployment")
    return reasons | {
        digests[0]: f"current model of {target}" for target, digests in protected.history.items() if digests
    }


def _judge(
    run: StoredRun,
    reasons: Mapping[str, str],
    active: Collection[str],
    mark: Mark | None,
    now: datetime,
    grace: timedelta,
) -> Verdict:
    if run.run_key in active:
        return Verdict(run, Fate.KEEP, "its run has not ended")
    if run.digest in reasons:
        return Verdict(run, Fate.KEEP, reasons[run.digest])
    if not run.digest:
        if mark is not None and mark.deleting:
            return Verdict(run, Fate.FINISH, "an earlier sweep broke off here")
        return Verdict(run, Fate.KEEP, "no whole model: it is being made, or may be gone on with")
    if mark is None or mark.deleting:
        return Verdict(run, Fate.MARK, f"nothing names it; it goes {grace} after now")
    waited = now - mark.since
    if waited < grace:
        return Verdict(run, Fate.MARK, f"nothing has named it for {waited}; it goes after {grace}")
    return Verdict(run, Fate.DELETE, f"nothing has named it for {waited}")
