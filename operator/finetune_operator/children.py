"""The Jobs and pods of a run as the API server gave them, small enough to be remembered by the thousand. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.packed_json import pack_json, told_metadata, unpack_json

Json = Mapping[str, Any]
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
ENDED_PHASES = frozenset({"Succeeded", "Failed"})
ENDS = frozenset({"Complete", "Failed"})


@dataclass(frozen=True)
class Children:
    """What was read of them, and in which versions."""

    packed: bytes
    versions: frozenset[str]
    open_versions: frozenset[str]
    """Of those that have not ended."""

    def jobs_and_pods(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Everything that decisions are made from; templates are left out."""
        jobs, pods = unpack_json(self.packed)
        return jobs, pods


def children_of(jobs: Iterable[Json], pods: Iterable[Json]) -> Children:
    """The children of a run, to be remembered."""
    bodies = ([_without_template(job) for job in jobs], [_without_template(pod) for pod in pods])
    ended = {version_of(job) for job in bodies[0] if job_ended(job)}
    ended |= {version_of(pod) for pod in bodies[1] if pod_ended(pod)}
    versions = frozenset(version_of(body) for kind in bodies for body in kind)
    return Children(pack_json(bodies), versions, versions - ended)


def pack(body: Json) -> bytes:
    """One child by itself, while those of all runs are gathered from a list."""
    return pack_json(_without_template(body))


def children_of_packed(jobs: Iterable[bytes], pods: Iterable[bytes]) -> Children:
    """The children of a run that were packed one by one."""
    return children_of(map(unpack_json, jobs), map(unpack_json, pods))


def version_of(body: Json) -> str:
    """Changes whenever the object does."""
    return str(body["metadata"].get("resourceVersion") or "")


def job_ended(job: Json) -> bool:
    """It makes no more pods."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(found.get("type") in ENDS and found.get("status") == "True" for found in conditions)


def pod_ended(pod: Json) -> bool:
    """It will not run any more."""
    return (pod.get("status") or {}).get("phase") in ENDED_PHASES


def may_begin(job: Json) -> bool:
    """The Job has not ended and was not told to stop: it makes pods, now or later."""
    return not job_ended(job) and "deletionTimestamp" not in job["metadata"]


def pods_may_be_older(jobs: Iterable[Json], pods: Iterable[Json]) -> bool:
    """Jobs and pods were read at once, and a Job has ended by whose pods one would not know it.

    Its pods must be read again: how the Job ended stands in them.
    """
    going_on = {name_of_job(pod) for pod in pods if not pod_ended(pod)}
    ended = {name_of_job(pod) for pod in pods if pod_ended(pod)}
    over = (job["metadata"]["name"] for job in jobs if job_ended(job))
    return any(name in going_on or name not in ended for name in over)


def name_of_job(pod: Json) -> str:
    """Of the Job that made the pod."""
    return str((pod["metadata"].get("labels") or {}).get(JOB_NAME_LABEL) or "")


def _without_template(body: Json) -> dict[str, Any]:
    spec = body.get("spec") or {}
    return {
        "metadata": told_metadata(body),
        "spec": {name: spec[name] for name in ("suspend", "nodeName") if name in spec},
        "status": body.get("status") or {},
    }
