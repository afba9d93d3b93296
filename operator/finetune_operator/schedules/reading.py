"""From the API server's JSON to a schedule and its runs. Pure; must not know how the JSON came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from finetune_contract.run_status import ConditionType, Phase
from finetune_contract.schedule_crd import KIND
from finetune_contract.schedule_spec import FineTuneScheduleSpec
from finetune_contract.schedule_status import Cause, FineTuneScheduleStatus, ScheduleReason
from finetune_operator.errors import InvalidRun
from finetune_operator.observed import RunKey
from finetune_operator.reading import status_of
from finetune_operator.schedules.observed import ChildRun, Schedule
from finetune_operator.schedules.run_manifest import LABEL_CAUSE, LABEL_SCHEDULE, LABEL_SCHEDULE_UID

Json = Mapping[str, Any]


def schedule_key(body: Json) -> RunKey:
    """Where the schedule lies."""
    return RunKey(body["metadata"]["namespace"], body["metadata"]["name"])


def owning_schedule(run: Json) -> RunKey | None:
    """The schedule that made a run; None when a person did."""
    metadata = run["metadata"]
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("kind") == KIND and owner.get("controller"):
            return RunKey(metadata["namespace"], owner["name"])
    return None


def schedule(body: Json) -> Schedule:
    """The schedule.

    Raises:
        InvalidRun: spec or status hold something that this operator's contract does not know.
    """
    metadata, spec = body["metadata"], body.get("spec") or {}
    try:
        parsed = FineTuneScheduleSpec.model_validate_json(json.dumps(spec), strict=True)
    except ValidationError as error:
        raise InvalidRun("; ".join(_in_words(found) for found in error.errors(include_url=False))) from None
    status = status_of(body, FineTuneScheduleStatus)
    return Schedule(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation") or 0),
        resource_version=str(metadata.get("resourceVersion") or ""),
        created_at=str(metadata.get("creationTimestamp") or ""),
        spec=parsed,
        template=dict(spec.get("template") or {}),
        status=status,
        deleting="deletionTimestamp" in metadata,
    )


def child(body: Json) -> ChildRun | None:
    """A run of a schedule; None when its label names no cause that this operator knows."""
    metadata, status, spec = body["metadata"], body.get("status") or {}, body.get("spec") or {}
    dataset = status.get("dataset") or {}
    try:
        cause = Cause((metadata.get("labels") or {}).get(LABEL_CAUSE, ""))
        phase = Phase(status["phase"]) if status.get("phase") else None
    except ValueError:
        return None
    changed = dataset.get("changedDocuments")
    return ChildRun(
        name=metadata["name"],
        uid=metadata["uid"],
        cause=cause,
        created_at=str(metadata.get("creationTimestamp") or ""),
        phase=phase,
        completed_at=str(status.get("completionTime") or ""),
        run_key=str(status.get("runKey") or ""),
        dataset_digest=str(dataset.get("digest") or ""),
        changed_posts=int(changed) if changed is not None else None,
        cancelled=bool(spec.get("cancel")),
        deleting="deletionTimestamp" in metadata,
        stalled=_stalled(body),
    )


def ready_reason(body: Json) -> str:
    """Why a schedule is Ready or not; Waiting where nothing is said yet."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    found = (condition["reason"] for condition in conditions if condition["type"] == ConditionType.READY)
    return str(next(found, ScheduleReason.WAITING.value))


def wakers(run: Json) -> tuple[object, ...]:
    """What of a run must change for a look at its schedule."""
    metadata, status = run["metadata"], run.get("status") or {}
    return metadata.get("uid"), status.get("phase"), metadata.get("deletionTimestamp"), bool(_stalled(run))


def _stalled(run: Json) -> str:
    conditions = (run.get("status") or {}).get("conditions") or ()
    found = (
        each for each in conditions if each["type"] == ConditionType.STALLED and each["status"] == "True"
    )
    return next((str(each.get("message") or each["reason"]) for each in found), "")


def selector(schedule: Schedule) -> str:
    """Finds the runs of this very schedule."""
    return f"{LABEL_SCHEDULE}={schedule.name},{LABEL_SCHEDULE_UID}={schedule.uid}"


def _in_words(found: Any) -> str:
    place = ".".join(["spec", *(str(part) for part in found["loc"])])
    return f"{place}: {found['msg']}"
