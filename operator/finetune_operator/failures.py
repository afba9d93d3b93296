"""From what a Job and its pods show to one word: why, whose budget it costs, and what it is waiting for. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from finetune_contract.exit_reasons import STAGE_REASONS
from finetune_contract.run_spec import FineTuneRunSpec, RetriesSpec
from finetune_contract.run_status import Attempt, Reason
from finetune_contract.stage_protocol import CONTAINER_NAME, StageReport
from finetune_operator.observed import ContainerFacts, JobFacts, PodFacts, Termination
from finetune_operator.stages import STAGE_BY_NAME
from finetune_operator.timestamps import seconds_since

IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError"})
IMAGE_PATIENCE_SECONDS = 300.0
"""An image that cannot be pulled for this long costs an attempt."""
GPU_PATIENCE_SECONDS = 60.0
"""A pod that holds a GPU may wait for a Secret this long; a pod that holds none waits until it comes."""
PODLESS_SECONDS = 15.0
"""A Job without a pod for this long has a reason that only its events tell."""
KILLED_FROM_OUTSIDE = frozenset({137, 143})
"""SIGKILL and SIGTERM without a word of Kubernetes why."""
FIRST_BACKOFF_SECONDS = 10.0
LONGEST_BACKOFF_SECONDS = 300.0
PREEMPTION_BACKOFF_SECONDS = 5.0

_MISSING_SECRET = re.compile(r'secrets? "(?P<name>[^"]+)" not found')
_MISSING_KEY = re.compile(r"couldn't find key (?P<key>\S+) in Secret (?:\S+/)?(?P<name>\S+)")
_EXIT_CODE = re.compile(r"exit code (\d+)")


class Outcome(StrEnum):
    """How far an attempt is."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True)
class Judgement:
    """What a Job shows."""

    outcome: Outcome
    reason: Reason = Reason.RUNNING
    message: str = ""
    exit_code: int | None = None
    node: str = ""
    report: StageReport | None = None
    needs_person: bool = False
    """It waits for something that only a person can bring."""
    stop: bool = False
    """It failed while its Job is still there: the Job is to be deleted."""


class Budget(StrEnum):
    """What a failure costs."""

    NONE = "none"
    """Never tried again."""
    INFRASTRUCTURE = "infrastructure"
    PREEMPTION = "preemption"
    FREE = "free"


_BUDGETS: dict[str, Budget] = {
    Reason.SOURCE_UNAVAILABLE: Budget.INFRASTRUCTURE,
    Reason.STORE_UNAVAILABLE: Budget.INFRASTRUCTURE,
    Reason.KNOWLEDGE_BASE_UNAVAILABLE: Budget.INFRASTRUCTURE,
    Reason.INFRASTRUCTURE: Budget.INFRASTRUCTURE,
    Reason.IMAGE_PULL_FAILED: Budget.INFRASTRUCTURE,
    Reason.SECRET_NOT_FOUND: Budget.INFRASTRUCTURE,
    Reason.PREEMPTED: Budget.PREEMPTION,
    Reason.SUSPENDED: Budget.FREE,
}


def budget_of(reason: str) -> Budget:
    """The budget that a failure with this reason is charged to."""
    return _BUDGETS.get(reason, Budget.NONE)


def allowed(budget: Budget, retries: RetriesSpec) -> int | None:
    """How many failures a budget covers; None when there is no limit."""
    match budget:
        case Budget.INFRASTRUCTURE:
            return retries.infrastructure
        case Budget.PREEMPTION:
            return retries.preemption
        case Budget.FREE:
            return None
        case Budget.NONE:
            return 0


def backoff_seconds(budget: Budget, failures: int) -> float:
    """Wait before the next attempt, after so many failures of one budget."""
    match budget:
        case Budget.INFRASTRUCTURE:
            return min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** max(0, failures - 1))
        case Budget.PREEMPTION:
            return PREEMPTION_BACKOFF_SECONDS
        case _:
            return 0.0


def judge(job: JobFacts, known: Attempt | None, spec: FineTuneRunSpec, now: datetime) -> Judgement:
    """What the Job of an attempt shows now.

    Args:
        known: what was written down about this attempt; its exit code outlives the pod.
    """
    pod = _telling_pod(job)
    ended = _ended(pod)
    node = pod.node if pod else ""
    exit_code = ended.exit_code if ended else (known.exit_code if known else None)
    report = StageReport.parse(ended.message) if ended else None
    if job.complete:
        return Judgement(Outcome.SUCCEEDED, Reason.COMPLETED, _said(ended, report), 0, node, report)
    if job.failed_reason:
        reason, message, exit_code = _why(job, pod, ended, exit_code, report, known, spec)
        return Judgement(Outcome.FAILED, reason, message, exit_code, node, report)
    if pod is None:
        message = "its queue has not admitted it" if job.suspended else "no pod yet"
        if not job.suspended and seconds_since(job.created_at, now) > PODLESS_SECONDS:
            message += f"; `kubectl describe job {job.name}` tells why (a quota, an admission policy)"
        return Judgement(Outcome.WAITING, Reason.WAITING, message)
    if pod.disruption:
        words = f"the pod was taken away and a new one follows: {pod.disruption}"
        return Judgement(Outcome.WAITING, Reason.PREEMPTED, words, None, node)
    if ended is not None:
        return Judgement(Outcome.RUNNING, Reason.RUNNING, _said(ended, report), exit_code, node, report)
    return _unfinished(job, pod, spec, now)


def _unfinished(job: JobFacts, pod: PodFacts, spec: FineTuneRunSpec, now: datetime) -> Judgement:
    if pod.unschedulable:
        return Judgement(Outcome.WAITING, Reason.UNSCHEDULABLE, pod.unschedulable)
    container = pod.container(CONTAINER_NAME)
    if container is None or container.running:
        outcome = Outcome.RUNNING if container else Outcome.WAITING
        return Judgement(outcome, Reason.RUNNING if container else Reason.WAITING, "", None, pod.node)
    if container.waiting_reason in CONFIG_REASONS:
        message = missing_secret(container.waiting_message, job, spec)
        if message:
            holds_gpu = STAGE_BY_NAME[job.stage].uses_gpu and spec.resources.train.gpu is not None
            if holds_gpu and seconds_since(pod.created_at, now) > GPU_PATIENCE_SECONDS:
                return Judgement(Outcome.FAILED, Reason.SECRET_NOT_FOUND, message, None, pod.node, stop=True)
            return Judgement(
                Outcome.WAITING, Reason.SECRET_NOT_FOUND, message, None, pod.node, needs_person=True
            )
        words = f"the container cannot be made: {container.waiting_message}"
        return Judgement(Outcome.WAITING, Reason.INFRASTRUCTURE, words, None, pod.node)
    if container.waiting_reason in IMAGE_REASONS:
        message = (
            f"the trainer image cannot be pulled ({container.waiting_reason}): {container.waiting_message}"
        )
        if seconds_since(pod.created_at, now) > IMAGE_PATIENCE_SECONDS:
            return Judgement(Outcome.FAILED, Reason.IMAGE_PULL_FAILED, message, None, pod.node, stop=True)
        return Judgement(Outcome.WAITING, Reason.IMAGE_PULL_FAILED, message, None, pod.node)
    return Judgement(Outcome.WAITING, Reason.WAITING, "the pod is being made", None, pod.node)


def missing_secret(words: str, job: JobFacts, spec: FineTuneRunSpec) -> str:
    """The kubelet's words about a missing Secret or key, with the spec field that refers to it; else empty."""
    gone, keyless = _MISSING_SECRET.search(words), _MISSING_KEY.search(words)
    match = gone or keyless
    if match is None:
        return ""
    name = match["name"]
    key = keyless["key"] if keyless else ""
    uses = [
        use
        for use in STAGE_BY_NAME[job.stage].secrets(spec)
        if use.secret == name and (not key or use.key == key)
    ]
    place = uses[0].spec_field if uses else "spec"
    keys = ", ".join(sorted({use.key for use in uses})) or "the keys that the field asks for"
    if keyless:
        return f'{place}: Secret "{name}" has no key "{key}"; add it'
    return f'{place}: Secret "{name}" does not exist; create it with the keys {keys}'


def _telling_pod(job: JobFacts) -> PodFacts | None:
    """The newest pod; but one that ended by itself tells more than one that is being taken away."""
    if not job.pods:
        return None
    told = [pod for pod in job.pods if _ended(pod) is not None and not pod.disruption]
    return told[-1] if told and job.over else job.pods[-1]


def _ended(pod: PodFacts | None) -> Termination | None:
    container: ContainerFacts | None = pod.container(CONTAINER_NAME) if pod else None
    return container.terminated if container else None


def _said(ended: Termination | None, report: StageReport | None) -> str:
    if report is not None:
        return report.message
    return ended.message.strip() if ended else ""


def _why(
    job: JobFacts,
    pod: PodFacts | None,
    ended: Termination | None,
    exit_code: int | None,
    report: StageReport | None,
    known: Attempt | None,
    spec: FineTuneRunSpec,
) -> tuple[Reason, str, int | None]:
    """Reason, message and exit code of a failed Job."""
    if exit_code is None and (match := _EXIT_CODE.search(job.failed_message)):
        exit_code = int(match[1])
    said = _said(ended, report) or (known.message if known else "")
    if job.failed_reason == "DeadlineExceeded":
        limit = spec.policy.stage_deadline_seconds
        words = (
            f"stage {job.stage.value} did not end within {limit} s; raise spec.policy.stageDeadlineSeconds"
        )
        return Reason.DEADLINE_EXCEEDED, words, exit_code
    if pod is not None and pod.disruption:
        return Reason.PREEMPTED, pod.disruption, exit_code
    if ended is not None and ended.reason == "OOMKilled":
        group = "train" if STAGE_BY_NAME[job.stage].uses_gpu else "other"
        resources = spec.resources.train if group == "train" else spec.resources.other
        words = (
            f"stage {job.stage.value} needed more than its memory limit of {resources.memory}; "
            f"raise spec.resources.{group}.memory"
        )
        return Reason.HOST_OUT_OF_MEMORY, words, exit_code
    if exit_code is None:
        words = said or job.failed_message or "the pod is gone and left no exit code"
        return Reason.INFRASTRUCTURE, words, None
    if exit_code in STAGE_REASONS and exit_code != 0:
        return STAGE_REASONS[exit_code], said or job.failed_message, exit_code
    if exit_code == 0 or exit_code in KILLED_FROM_OUTSIDE:
        return (
            Reason.INFRASTRUCTURE,
            said or f"the pod was stopped from outside (exit code {exit_code})",
            exit_code,
        )
    words = said or (ended.reason if ended else "") or job.failed_message
    return Reason.INTERNAL_ERROR, f"the stage ended with exit code {exit_code}: {words}", exit_code
