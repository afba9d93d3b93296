"""What Kueue says of a Job that waits in a queue. Pure: JSON in, words out.

Kueue keeps a Workload for each Job with its label, and tells in its conditions why the Job may not run yet. Only
`list` is used, and only where Kueue is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

GROUP = "kueue.x-k8s.io"
LABEL_JOB_UID = f"{GROUP}/job-uid"
"""On a Workload: uid of the Job that it stands for."""
MAY_START_WITH_ONE = {f"{GROUP}/job-min-parallelism": "1"}
"""Annotation of a Job with several pods that need not run at once. Kueue refuses it on a Job with one pod."""
MAX_LENGTH = 1024

Json = Mapping[str, Any]


def served_version(group: Json) -> str:
    """The version that the API server likes best; empty when it names none."""
    return str((group.get("preferredVersion") or {}).get("version") or "")


def words_of(workloads: Iterable[Json]) -> str:
    """Why the Job is held back, in Kueue's own words; empty when Kueue has not said anything yet."""
    newest = max(
        workloads, key=lambda found: str(found["metadata"].get("creationTimestamp") or ""), default=None
    )
    if newest is None:
        return ""
    return _words(newest)[:MAX_LENGTH]


def _words(workload: Json) -> str:
    conditions = {found["type"]: found for found in (workload.get("status") or {}).get("conditions") or ()}

    def said(kind: str, status: str) -> str:
        found = conditions.get(kind) or {}
        if found.get("status") != status:
            return ""
        return f"{found.get('reason', '')}: {found.get('message', '')}".strip(": ")

    if (workload.get("spec") or {}).get("active") is False:
        reason = said("Evicted", "True")
        return "the Workload is not active; set its spec.active to true" + (f" ({reason})" if reason else "")
    waits = said("QuotaReserved", "False")
    if waits:
        before = said("Evicted", "True")
        return f"{waits} (taken back before: {before})" if before else waits
    if evicted := said("Evicted", "True"):
        return evicted  # its quota stays reserved until its pods have ended
    if said("QuotaReserved", "True") and not said("Admitted", "True"):
        return f"quota is reserved, its admission checks are not done{_checks(workload)}"
    return ""


def _checks(workload: Json) -> str:
    """The admission checks that hold it up."""
    held = [
        f"{check.get('name')} {check.get('state')}: {check.get('message', '')}".rstrip(": ")
        for check in (workload.get("status") or {}).get("admissionChecks") or ()
        if check.get("state") != "Ready"
    ]
    return f": {'; '.join(held)}" if held else ""
