"""Limits over all attempts of a run: GPU hours, time on nodes, and how often Kubernetes may take pods away. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_contract.run_status import Reason
from finetune_operator.attempts import Book
from finetune_operator.failure_classes import TAKEN_AWAY, allowed
from finetune_operator.observed import Run
from finetune_operator.pod_use import with_pods
from finetune_operator.stages import StageDefinition
from finetune_operator.timestamps import in_words
from finetune_operator.usage import SECONDS_AN_HOUR, accounted, held, spent_gpu_seconds

_NEW_RUN = "a new run with more goes on from the last checkpoint"


@dataclass(frozen=True)
class Limit:
    """A limit that is reached."""

    reason: Reason
    message: str


def limit_reached(run: Run, book: Book, definition: StageDefinition, now: datetime) -> Limit | None:
    """The first limit that forbids the stage to go on, or to start; None when there is none."""
    if definition.uses_gpu and (limit := _spent(run, book, now)) is not None:
        return limit
    reasons = {Reason.PREEMPTED: "preemption", Reason.EVICTED: "eviction", Reason.NODE_LOST: "nodeLoss"}
    for budget in sorted(TAKEN_AWAY):
        most = allowed(budget, run.spec.policy.retries)
        times = book.failures(definition.stage, budget)
        if most is not None and times > most:
            reason = next(reason for reason, field in reasons.items() if field == budget.value)
            return Limit(
                reason, f"pods were taken away {times} times; spec.policy.retries.{budget.value} is {most}"
            )
    return None


def _spent(run: Run, book: Book, now: datetime) -> Limit | None:
    policy = run.spec.policy
    most_hours, most_seconds = policy.budget.max_gpu_hours, policy.active_deadline_seconds
    if most_hours is None and not most_seconds:
        return None
    jobs = {job.name: job for job in book.jobs}
    to_the_second = [
        with_pods(attempt, jobs[attempt.job], now, step=1) if attempt.job in jobs else attempt
        for attempt in book.status.attempts
    ]
    status = book.status.model_copy(update={"attempts": accounted(to_the_second, run.spec)})
    if most_hours is not None:
        used = spent_gpu_seconds(status)
        if used >= most_hours * SECONDS_AN_HOUR:
            words = (
                f"spec.policy.budget.maxGPUHours: {most_hours:g} GPU hours are used up "
                f"({used / SECONDS_AN_HOUR:.2f}); {_NEW_RUN}"
            )
            return Limit(Reason.BUDGET_EXCEEDED, words)
    seconds = held(status)
    if most_seconds and seconds >= most_seconds:
        words = (
            f"spec.policy.activeDeadlineSeconds: training and evaluation held nodes for {in_words(seconds)} of "
            f"{in_words(most_seconds)}; {_NEW_RUN}"
        )
        return Limit(Reason.DEADLINE_EXCEEDED, words)
    return None
