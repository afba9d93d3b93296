"""The FineTuneRun that a schedule makes. Pure.

Its name is made from why and for when it is made, so that whoever sees the same makes the same object: a tick that is
seen twice makes one run.
"""

from __future__ import annotations

import hashlib
from typing import Any

from finetune_contract.crd_schema import API_VERSION
from finetune_contract.crd_schema import KIND as RUN_KIND
from finetune_contract.run_spec import LastStage
from finetune_contract.schedule_crd import KIND
from finetune_contract.schedule_status import Cause
from finetune_operator.api_group import GROUP
from finetune_operator.schedules.observed import CreateRun, Schedule

LABEL_SCHEDULE = f"{GROUP}/schedule"
"""Name of the schedule."""
LABEL_SCHEDULE_UID = f"{GROUP}/schedule-uid"
"""uid of the schedule: a later one of the same name never sees the runs of an earlier one."""
LABEL_CAUSE = f"{GROUP}/cause"
_MARKS = {Cause.CRON: "", Cause.REVISION: "r-", Cause.CONTENT: "c-", Cause.CHECK: "check-"}
HASH_LENGTH = 8


def run_name(schedule: Schedule, cause: Cause, what: str) -> str:
    """Name of the run that is made for something: a time in minutes, or a hash."""
    return f"{schedule.name}-{_MARKS[cause]}{what}"


def short_hash(*parts: str) -> str:
    """Of what a run is made for."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:HASH_LENGTH]


def run_for(schedule: Schedule, name: str, cause: Cause) -> CreateRun:
    """The run, compared with what is finished.

    With the live model alone where the clock or a look at the posts asks: what was tried and is not live is tried anew
    by the clock. Documents are counted from what was tried where nothing is live.
    """
    metadata, spec = schedule.template.get("metadata") or {}, dict(schedule.template["spec"])
    if cause is Cause.CHECK:
        spec["lastStage"] = LastStage.DATASET.value
    live, tried = schedule.status.live, schedule.status.tried
    counted_from = live or tried
    compared = {
        "runKey": live.run_key if live is not None and cause is not Cause.REVISION else "",
        "datasetDigest": counted_from.dataset_digest if counted_from is not None else "",
    }
    if any(compared.values()):
        spec["compareWith"] = {field: value for field, value in compared.items() if value}
    manifest: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": RUN_KIND,
        "metadata": {
            "name": name,
            "namespace": schedule.namespace,
            "labels": {
                **(metadata.get("labels") or {}),
                LABEL_SCHEDULE: schedule.name,
                LABEL_SCHEDULE_UID: schedule.uid,
                LABEL_CAUSE: cause.value,
            },
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": schedule.name,
                    "uid": schedule.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": spec,
    }
    return CreateRun(name, manifest)
