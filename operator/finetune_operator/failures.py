"""From what a Job and its pods show to one word: why it failed, or what it is waiting for. Pure.

What a reason costs is written in failure_classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from finetune_contract.exit_reasons import STAGE_REASONS
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.run_status import Attempt, Reason
from finetune_contract.stage_protocol import CONTAINER_NAME, ExitCode, StageReport
from finetune_operator import side_by_side
from finetune_operator.failure_classes import taker
from finetune_operator.observed import ContainerFacts, JobFacts, PodFacts, Termination
from finetune_operator.pod_use import waiting_seconds
from finetune_operator.stages import STAGE_BY_NAME
from finetune_operator.timestamps import in_words, seconds_since

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
KUBELET_REASONS = {
    "Evicted": Reason.EVICTED,
    "Preempting": Reason.PREEMPTED,
    "NodeLost": Reason.NODE_LOST,
    "Terminated": Reason.EVICTED,
    "NodeShutdown": Reason.EVICTED,
}
"""Reasons of a pod that the kubelet, or the node's shutdown, ended."""

_TOLD_TO_STOP = frozenset({0, ExitCode.PREEMPTED.value, *KILLED_FROM_OUTSIDE})
_MISSING_SECRET = re.compile(r'secrets? "(?P<name>[^"]+)" not found')
_MISSING_KEY = re.compile(r"couldn't find key (?P<key>\S+) in Secret (?:\S+/)?(?P<name>\S+)")
_EXIT_CODE = re.compile(r"exit code (\d+)")
_FULL_VOLUME = re.compile(r'EmptyDir volume "(?P<volume>[^"]+)" exceeds the limit')
_FULL_DISK = re.compile(
    r"ephemeral[- ](local )?storage .*(exceeds|exceeded)|exceeded its local ephemeral storage"
)
_SIZES = {"work": "scratch", "shm": "sharedMemory"}
"""Volumes of a stage's pod, and the field of `spec.resources` that sets their size."""


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


def judge(job: JobFacts, known: Attempt | None, spec: FineTuneRunSpec, now: datetime) -> Judgement:
    """What the Job of an attempt shows now.

    Args:
        known: what was written down about this attempt; its exit code outlives the pod.
    """
    shares = side_by_side.shares(spec, job.stage)
    pod = _telling_pod(job, shares)
    ended = _ended(pod)
    node = pod.node if pod else ""
    exit_code = ended.exit_code if ended else (known.exit_code if known else None)
    report = StageReport.parse(ended.message) if ended else None
    if job.complete:
        return Judgement(Outcome.SUCCEEDED, Reason.COMPLETED, _said(ended, report), 0, node, report)
    if job.failed_reason:
        reason, message, exit_code = _why(job, pod, ended, exit_code, report, known, spec)
        return Judgement(Outcome.FAILED, reason, message, exit_code, node, report)
    if pod is None or (job.suspended and (ended is not None or pod.disruption)):
        return _in_time(_podless(job, pod, now), job, known, spec, now)
    if pod.disruption:
        return _in_time(_replaced(pod), job, known, spec, now)
    if ended is not None:
        return Judgement(Outcome.RUNNING, Reason.RUNNING, _said(ended, report), exit_code, node, report)
    judgement = _unfinished(job, pod, spec, now)
    if shares > 1 and pod.unschedulable and (done := side_by_side.ended_well(job)):
        words = f"{done} of {shares} pods are done, the others wait for a node: {pod.unschedulable}"
        judgement = Judgement(Outcome.WAITING, Reason.WAITING, words)
    return _in_time(judgement, job, known, spec, now)


def _podless(job: JobFacts, pod: PodFacts | None, now: datetime) -> Judgement:
    if job.suspended:
        message = "its queue has not admitted it" if pod is None else "its queue took its place back"
        message += f": {job.queue_words}" if job.queue_words else ""
        return Judgement(Outcome.WAITING, Reason.WAITING, message)
    message = "no pod yet"
    if seconds_since(job.created_at, now) > PODLESS_SECONDS:
        message += f"; `kubectl describe job {job.name}` tells why (a quota, an admission policy)"
    return Judgement(Outcome.WAITING, Reason.WAITING, message)


def _replaced(pod: PodFacts) -> Judgement:
    """Kubernetes took the pod away; its Job makes a new one when this one has ended."""
    reason = taker(pod.disruption)
    words = f"the pod was taken away and a new one follows: {pod.disruption}"
    if reason is Reason.NODE_LOST and pod.deleting and pod.may_run:
        words += (
            f"; node {pod.node} does not answer: the new pod comes when it is back, or when its Node object is "
            "deleted"
        )
    return Judgement(Outcome.WAITING, reason, words, None, pod.node)


def _in_time(
    judgement: Judgement, job: JobFacts, known: Attempt | None, spec: FineTuneRunSpec, now: datetime
) -> Judgement:
    """The same, unless it has waited for a queue or a node for too long."""
    limit = spec.policy.queue_deadline_seconds
    if judgement.outcome is not Outcome.WAITING or not limit or known is None:
        return judgement
    waited = waiting_seconds(known, job, now)
    if waited <= limit:
        return judgement
    words = (
        f"spec.policy.queueDeadlineSeconds: no node for {in_words(waited)}: {judgement.message or 'no pod yet'}; "
        "make room for what spec.resources asks for, or raise it in a new run"
    )
    return Judgement(Outcome.FAILED, Reason.UNSCHEDULABLE, words, None, judgement.node, stop=True)


def _unfinished(job: JobFacts, pod: PodFacts, spec: FineTuneRunSpec, now: datetime) -> Judgement:
    if pod.unschedulable:
        return Judgement(Outcome.WAITING, Reason.UNSCHEDULABLE, pod.unschedulable)
    container = pod.container(CONTAINER_NAME)
    if pod.silent(CONTAINER_NAME):
        words = f"node {pod.node} does not answer; what the pod did last is kept, and nothing is stopped"
        return Judgement(Outcome.RUNNING, Reason.NODE_LOST, words, None, pod.node)
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


def _telling_pod(job: JobFacts, shares: int) -> PodFacts | None:
    """The newest pod; but of a Job that is over, one that ended by itself, and of those one that failed.

    Pods that were told to stop, because another one of theirs failed, tell nothing. While a Job is under way, a pod
    that found no node tells what the others wait for; unless each does its own share.
    """
    if shares > 1 and not job.over:
        return side_by_side.speaker(job)
    if shares > 1 and job.complete and (publisher := side_by_side.publisher(job)):
        return publisher
    if not job.over:
        homeless = [pod for pod in job.pods if pod.unschedulable]
        return _last(homeless or job.pods)
    if job.failed_reason == "PodFailurePolicy" and job.pods and job.pods[-1].disruption:
        return job.pods[-1]
    told = [pod for pod in job.pods if _ended(pod) is not None and not pod.disruption]
    failed = [pod for pod in told if (end := _ended(pod)) and end.exit_code not in _TOLD_TO_STOP]
    return _last(failed or told or job.pods)


def _last(pods: Sequence[PodFacts]) -> PodFacts | None:
    return pods[-1] if pods else None


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
    if job.failed_reason == "DeadlineExceeded" or (pod is not None and pod.reason == "DeadlineExceeded"):
        limit = spec.policy.stage_deadline_seconds
        words = (
            f"stage {job.stage.value} did not end within {limit} s; raise spec.policy.stageDeadlineSeconds"
        )
        return Reason.DEADLINE_EXCEEDED, words, exit_code
    if pod is not None and pod.reason == "Evicted" and (words := _full(job, pod, spec)):
        return Reason.SCRATCH_FULL, words, exit_code
    if pod is not None and pod.disruption:
        return taker(pod.disruption), pod.disruption, exit_code
    if pod is not None and pod.reason in KUBELET_REASONS:
        return KUBELET_REASONS[pod.reason], f"{pod.reason}: {pod.message}", exit_code
    if ended is not None and ended.reason == "OOMKilled":
        words = (
            f"stage {job.stage.value} needed more than its memory limit of {_memory(job, spec)}; "
            f"raise {_group(job)}.memory"
        )
        return Reason.HOST_OUT_OF_MEMORY, words, exit_code
    if exit_code == ExitCode.HOST_OUT_OF_MEMORY and "spec.resources" not in said:
        words = f"{said or 'out of memory'}; raise {_group(job)}.memory ({_memory(job, spec)})"
        return Reason.HOST_OUT_OF_MEMORY, words, exit_code
    if exit_code is None:
        of_pod = f"{pod.reason}: {pod.message}" if pod is not None and pod.reason else ""
        if pod is None and job.failed_reason == "BackoffLimitExceeded":
            of_pod = "the pod is gone and left no exit code: somebody deleted it while it ran"
        words = said or of_pod or job.failed_message or "the pod left no exit code"
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


def _group(job: JobFacts) -> str:
    """The part of the spec that sizes the stage's pod."""
    return f"spec.resources.{'train' if STAGE_BY_NAME[job.stage].uses_gpu else 'other'}"


def _memory(job: JobFacts, spec: FineTuneRunSpec) -> str:
    resources = spec.resources.train if STAGE_BY_NAME[job.stage].uses_gpu else spec.resources.other
    return resources.memory


def _full(job: JobFacts, pod: PodFacts, spec: FineTuneRunSpec) -> str:
    """What to raise when the pod was put out because it wrote too much; empty when it was for another reason."""
    if (volume := _FULL_VOLUME.search(pod.message)) is not None:
        field = _SIZES.get(volume["volume"])
        remedy = f"raise {_group(job)}.{field}" if field else f"its folder {volume['volume']} is full"
        return f"stage {job.stage.value}: {pod.message.strip()}; {remedy}"
    if _FULL_DISK.search(pod.message):
        return f"stage {job.stage.value}: {pod.message.strip()}; raise {_group(job)}.scratch"
    return ""
