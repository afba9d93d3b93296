"""How long the pods of an attempt held their nodes, and so their GPUs. Pure.

Times are those of the kubelet and the scheduler, so what is counted does not depend on when the operator looked.
A running pod is counted in whole minutes: a status that says something new every second would be written every second.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from finetune_contract.run_status import MOST_ENDED_PODS, Attempt, PodUse, Reason
from finetune_contract.stage_protocol import CONTAINER_NAME
from finetune_operator.failure_classes import taker
from finetune_operator.observed import JobFacts, PodFacts
from finetune_operator.timestamps import from_rfc3339, seconds_since

SHOWN_STEP_SECONDS = 60
KEPT_APART = 3
"""Of more ended pods than an attempt may tell of the newest are told of one by one, older ones together by who took
them: nobody, one of three whom Kubernetes names, or a queue."""


def with_pods(attempt: Attempt, job: JobFacts, now: datetime, step: int = SHOWN_STEP_SECONDS) -> Attempt:
    """The attempt with what its Job's pods show.

    Args:
        step: seconds that a running pod's time is rounded down to.
    """
    uses = list(attempt.pods)
    forgotten_until = max((use.since for use in uses if not use.name), default="")
    for pod in sorted(job.pods, key=lambda pod: (pod.scheduled_at, pod.name)):
        place = next((i for i, use in enumerate(uses) if use.name == pod.name), None)
        known = uses[place] if place is not None else None
        use = _use(pod, known, now, step)
        if use is None or (known is None and use.since <= forgotten_until):
            continue
        if place is None:
            uses.append(use)
        else:
            uses[place] = use
    seen = {pod.name for pod in job.pods}
    uses = [_until_suspension(use, job) if use.name and use.name not in seen else use for use in uses]
    uses = _folded(uses, {pod.name for pod in job.pods if pod.may_run})
    changes: dict[str, object] = {"pods": uses}
    if uses and not attempt.pods:
        changes["queue_seconds"] = _between(job.created_at or attempt.started_at, uses[0].since)
    return attempt.model_copy(update=changes)


def held_seconds(attempt: Attempt) -> int:
    """How long all pods of an attempt held nodes together."""
    return sum(use.seconds for use in attempt.pods)


def waiting_seconds(attempt: Attempt, job: JobFacts, now: datetime) -> float:
    """How long the attempt has lacked a pod, or a pod of it a node; 0 while all that may run have theirs."""
    housed = {pod.name for pod in job.pods if pod.node and pod.may_run}
    if housed and not any(pod.may_run and not pod.node for pod in job.pods):
        return 0.0
    waiting = seconds_since(job.created_at or attempt.started_at, now)
    for use in attempt.pods:
        if use.name not in housed:
            waiting = min(waiting, max(0.0, seconds_since(use.since, now) - use.seconds))
    return waiting


def _use(pod: PodFacts, known: PodUse | None, now: datetime, step: int) -> PodUse | None:
    since = pod.scheduled_at or (known.since if known else "")
    if not since or not pod.node:
        return known
    taken_by = taker(pod.disruption).value if pod.disruption else (known.taken_by if known else "")
    before = known.seconds if known else 0
    if until := _ended_at(pod):
        seconds = _between(since, until)
    elif pod.may_run:
        seconds = max(before, int(seconds_since(since, now)) // step * step)
    else:
        seconds = before
    return PodUse(name=pod.name, since=since, seconds=seconds, taken_by=taken_by)


def _until_suspension(use: PodUse, job: JobFacts) -> PodUse:
    """Of a pod that is gone: a queue that takes a place back suspends the Job, and its pods are gone a moment later."""
    if use.taken_by or not job.suspended_at or use.since >= job.suspended_at:
        return use
    seconds = max(use.seconds, _between(use.since, job.suspended_at))
    return use.model_copy(update={"seconds": seconds, "taken_by": Reason.SUSPENDED.value})


def _ended_at(pod: PodFacts) -> str:
    container = pod.container(CONTAINER_NAME)
    return container.terminated.finished_at if container and container.terminated else ""


def _between(start: str, end: str) -> int:
    moment = from_rfc3339(end)
    return int(seconds_since(start, moment)) if moment else 0


def _folded(uses: list[PodUse], running: Collection[str]) -> list[PodUse]:
    """At most MOST_ENDED_PODS entries besides the pods that run: what is lost is who, not how long."""
    if sum(use.name not in running for use in uses) <= MOST_ENDED_PODS:
        return uses
    new = [use for use in uses[:-KEPT_APART] if use.name in running] + uses[-KEPT_APART:]
    old = [use for use in uses[:-KEPT_APART] if use.name not in running]
    together: dict[str, PodUse] = {}
    for use in old:
        sum_ = together.get(use.taken_by, PodUse(name="", pods=0, taken_by=use.taken_by))
        together[use.taken_by] = sum_.model_copy(
            update={
                "pods": sum_.pods + use.pods,
                "since": max(sum_.since, use.since),
                "seconds": sum_.seconds + use.seconds,
            }
        )
    return [*sorted(together.values(), key=lambda use: use.taken_by), *new]
