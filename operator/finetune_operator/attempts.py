"""The book of attempts: every Job of a run, what became of it, and what the stages reported. Pure.

The book is the status's own `attempts` and facts; what is seen in the cluster is written into it once and stays,
so that a Job may vanish later (its time to live, a deleted pod, an operator that was away) and nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from finetune_contract.run_status import Attempt, FineTuneRunStatus, Reason
from finetune_contract.stage_protocol import ProgressLine, Stage
from finetune_operator.failures import Budget, Judgement, Outcome, budget_of, judge
from finetune_operator.observed import JobFacts, Observed, Run
from finetune_operator.stages import STAGE_BY_NAME
from finetune_operator.timestamps import seconds_since, to_rfc3339

RUNNING = "Running"
SUCCEEDED = "Succeeded"
MAX_ATTEMPTS = 20
MAX_LOG_LINES = 10
MAX_LOG_LINE_LENGTH = 300
MAX_MESSAGE_LENGTH = 2048
UNSEEN_SECONDS = 10.0
"""A Job that was just made may not be seen yet; only after this is it taken for gone."""


@dataclass(frozen=True)
class Book:
    """The attempts after reading what was observed."""

    status: FineTuneRunStatus
    jobs: tuple[JobFacts, ...]
    judgements: dict[str, Judgement]
    """By Job, for attempts that run."""

    def latest(self, stage: Stage) -> Attempt | None:
        """The newest attempt of a stage."""
        return max(
            (attempt for attempt in self.status.attempts if attempt.stage == stage),
            key=lambda attempt: attempt.number,
            default=None,
        )

    def done(self, stage: Stage) -> bool:
        """The stage succeeded, or was not needed because a finished model was adopted."""
        if self.status.adopted and stage is not Stage.DATASET:
            return True
        latest = self.latest(stage)
        return latest is not None and latest.result == SUCCEEDED

    def live_jobs(self) -> tuple[JobFacts, ...]:
        """Jobs that may still run pods, those being deleted too."""
        return tuple(job for job in self.jobs if job.live)

    def occupied(self, stage: Stage) -> bool:
        """A Job of the stage may still run pods."""
        return any(job.stage == stage for job in self.live_jobs())

    def failures(self, stage: Stage, budget: Budget) -> int:
        """Failed attempts of a stage that were charged to a budget."""
        mine = [attempt for attempt in self.status.attempts if attempt.stage == stage]
        charged = sum(budget_of(attempt.result) is budget for attempt in mine if attempt.result != RUNNING)
        if budget is Budget.PREEMPTION and mine:
            forgotten = max(attempt.number for attempt in mine) + 1 - len(mine)
            charged += forgotten
        return charged

    def with_attempt(self, attempt: Attempt) -> Book:
        """The book with one attempt added."""
        return replace(self, status=_with_attempts(self.status, [*self.status.attempts, attempt]))

    def closed_as(self, jobs: set[str], reason: Reason, now: datetime) -> Book:
        """The book with the running attempts of these Jobs ended for a reason of the user's."""
        attempts = [
            attempt.model_copy(update={"result": reason.value, "finished_at": to_rfc3339(now)})
            if attempt.job in jobs and attempt.result == RUNNING
            else attempt
            for attempt in self.status.attempts
        ]
        return replace(self, status=_with_attempts(self.status, attempts))


def read_book(run: Run, observed: Observed, now: datetime) -> Book:
    """The run's book with everything that the Jobs show written into it."""
    status = run.status
    attempts = list(status.attempts)
    for job in sorted(observed.jobs, key=lambda job: (job.created_at, job.attempt)):
        newest = max((a.number for a in attempts if a.stage == job.stage), default=-1)
        if job.attempt > newest:
            started = job.created_at or to_rfc3339(now)
            attempts.append(Attempt(stage=job.stage, number=job.attempt, job=job.name, started_at=started))
    jobs = {job.name: job for job in observed.jobs}
    judgements: dict[str, Judgement] = {}
    for index, attempt in enumerate(attempts):
        if attempt.result != RUNNING:
            continue
        job_facts = jobs.get(attempt.job)
        if job_facts is None:
            attempts[index] = _vanished(run, attempt, now)
            continue
        judgement = judge(job_facts, attempt, run.spec, now)
        if judgement.report is not None and judgement.exit_code == 0:
            status = STAGE_BY_NAME[attempt.stage].absorb(status, judgement.report) or status
        attempts[index] = _written(attempt, judgement, job_facts, status, now)
        judgements[attempt.job] = judgement
    return Book(_with_attempts(status, attempts), observed.jobs, judgements)


def _vanished(run: Run, attempt: Attempt, now: datetime) -> Attempt:
    """An attempt whose Job is not there."""
    if run.spec.suspend or run.spec.cancel:
        reason = Reason.CANCELLED if run.spec.cancel else Reason.SUSPENDED
        return attempt.model_copy(update={"result": reason.value, "finished_at": to_rfc3339(now)})
    if seconds_since(attempt.started_at, now) < UNSEEN_SECONDS:
        return attempt
    return attempt.model_copy(
        update={
            "result": Reason.INFRASTRUCTURE.value,
            "message": attempt.message or f"Job {attempt.job} was deleted before it ended",
            "finished_at": to_rfc3339(now),
        }
    )


def _written(
    attempt: Attempt, judgement: Judgement, job: JobFacts, status: FineTuneRunStatus, now: datetime
) -> Attempt:
    """The attempt with the judgement in it. Exit code and message are kept at first sight."""
    changes: dict[str, object] = {}
    if judgement.node:
        changes["node"] = judgement.node
    if judgement.exit_code is not None:
        changes["exit_code"] = judgement.exit_code
        if judgement.message:
            changes["message"] = judgement.message[:MAX_MESSAGE_LENGTH]
    if judgement.outcome is Outcome.SUCCEEDED:
        changes |= {"result": SUCCEEDED, "finished_at": to_rfc3339(now)}
        if not STAGE_BY_NAME[attempt.stage].absorbed(status):
            changes["result"] = Reason.INTERNAL_ERROR.value
            changes["message"] = (
                f"stage {attempt.stage.value} ended well but left no report that this operator can read; "
                "use a trainer image of the operator's own version"
            )
    elif judgement.outcome is Outcome.FAILED:
        changes |= {
            "result": judgement.reason.value,
            "message": judgement.message[:MAX_MESSAGE_LENGTH],
            "finished_at": to_rfc3339(now),
            "last_log_lines": _last_lines(job.log_tail),
        }
    return attempt.model_copy(update=changes) if changes else attempt


def _last_lines(log_tail: tuple[str, ...] | None) -> list[str]:
    """The end of the log in plain words: progress lines are for programs."""
    lines = [
        line.rstrip()[:MAX_LOG_LINE_LENGTH]
        for line in log_tail or ()
        if line.strip() and ProgressLine.parse(line) is None
    ]
    return lines[-MAX_LOG_LINES:]


def _with_attempts(status: FineTuneRunStatus, attempts: list[Attempt]) -> FineTuneRunStatus:
    """At most MAX_ATTEMPTS: suspended ones are forgotten first, then preempted ones, then the oldest.

    The newest of a stage is never forgotten.
    """
    attempts = list(attempts)
    while len(attempts) > MAX_ATTEMPTS:
        newest = {stage: max((a.number for a in attempts if a.stage == stage), default=-1) for stage in Stage}
        old = [attempt for attempt in attempts if attempt.number != newest[attempt.stage]]
        suspended = [attempt for attempt in old if attempt.result == Reason.SUSPENDED]
        preempted = [attempt for attempt in old if attempt.result == Reason.PREEMPTED]
        attempts.remove((suspended or preempted or old)[0])
    return status.model_copy(update={"attempts": attempts})
