"""The book of attempts: every Job of a run, what became of it, and what the stages reported. Pure.

The book is the status's own `attempts` and facts; what is seen in the cluster is written into it once and stays,
so that a Job may vanish later (its time to live, a deleted pod, an operator that was away) and nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.run_status import Attempt, FineTuneRunStatus, Reason
from finetune_contract.stage_protocol import ProgressLine, Stage, StageReport
from finetune_operator import memory_ladder
from finetune_operator.failure_classes import Budget, budget_of, class_of
from finetune_operator.failures import Judgement, Outcome, judge
from finetune_operator.observed import JobFacts, Observed, Run
from finetune_operator.pod_use import with_pods
from finetune_operator.side_by_side import shares
from finetune_operator.stages import STAGE_BY_NAME
from finetune_operator.timestamps import seconds_since, to_rfc3339
from finetune_operator.usage import RUNNING as RUNNING
from finetune_operator.usage import SUCCEEDED, accounted, with_forgotten

MAX_ATTEMPTS = 20
MAX_LOG_LINES = 20
MAX_LOG_LINE_LENGTH = 300
MAX_MESSAGE_LENGTH = 2048
UNSEEN_SECONDS = 10.0
"""A Job that was just made may not be seen yet; only after this is it taken for gone."""
_FORGOTTEN_FIRST = (Reason.SUSPENDED, Reason.PREEMPTED, Reason.EVICTED, Reason.NODE_LOST)


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

    def unseen_jobs(self) -> tuple[str, ...]:
        """Jobs that were made a moment ago and are not in sight yet: they may run pods too."""
        seen = {job.name for job in self.jobs}
        return tuple(a.job for a in self.status.attempts if a.result == RUNNING and a.job not in seen)

    def occupied(self, stage: Stage) -> bool:
        """A Job of the stage may still run pods."""
        return any(job.stage == stage for job in self.live_jobs())

    def failures(self, stage: Stage, budget: Budget) -> int:
        """Failures of a stage that were charged to a budget: attempts, and pods that a Job replaced by itself."""
        return failures(self.status, stage, budget)

    def new_attempt(self, run: Run, stage: Stage, number: int, job: str, started_at: str) -> Attempt:
        """An attempt that begins, with what it changes after memory ran out."""
        return _new_attempt(run, self.status, stage, number, job, started_at)

    def with_attempt(self, attempt: Attempt) -> Book:
        """The book with one attempt added."""
        return replace(self, status=_with_attempts(self.status, [*self.status.attempts, attempt]))

    def closed_as(self, jobs: set[str], reason: Reason, now: datetime, message: str = "") -> Book:
        """The book with the running attempts of these Jobs ended by the operator, for itself or for the user."""
        logs = {job.name: job.log_tail for job in self.jobs}
        attempts: list[Attempt] = []
        for attempt in self.status.attempts:
            if attempt.job in jobs and attempt.result == RUNNING:
                changes: dict[str, object] = {
                    "result": reason.value,
                    "failure_class": class_of(reason),
                    "finished_at": to_rfc3339(now),
                }
                if message:
                    changes["message"] = message[:MAX_MESSAGE_LENGTH]
                    changes["last_log_lines"] = _last_lines(logs.get(attempt.job))
                attempt = attempt.model_copy(update=changes)
            attempts.append(attempt)
        return replace(self, status=_with_attempts(self.status, attempts))


def failures(status: FineTuneRunStatus, stage: Stage, budget: Budget) -> int:
    """Failures of a stage in a status that were charged to a budget."""
    count = 0
    for attempt in status.attempts:
        if attempt.stage == stage:
            taken = sum(
                use.pods for use in attempt.pods if use.taken_by and budget_of(use.taken_by) is budget
            )
            own = attempt.result not in (RUNNING, SUCCEEDED) and budget_of(attempt.result) is budget
            told = bool(attempt.pods) and attempt.pods[-1].taken_by == attempt.result
            count += taken + (own and not told)
    for entry in status.forgotten:
        if entry.stage == stage:
            taken = sum(number for reason, number in entry.taken.items() if budget_of(reason) is budget)
            count += max(taken, entry.count if budget_of(entry.result) is budget else 0)
    return count


def read_book(run: Run, observed: Observed, now: datetime) -> Book:
    """The run's book with everything that the Jobs show written into it."""
    status = run.status
    attempts = list(status.attempts)
    for job in sorted(observed.jobs, key=lambda job: (job.created_at, job.attempt)):
        newest = max((a.number for a in attempts if a.stage == job.stage), default=-1)
        if job.attempt > newest:
            started = job.created_at or to_rfc3339(now)
            known = status.model_copy(update={"attempts": attempts})
            attempts.append(_new_attempt(run, known, job.stage, job.attempt, job.name, started))
    jobs = {job.name: job for job in observed.jobs}
    judgements: dict[str, Judgement] = {}
    for index, attempt in enumerate(attempts):
        job_facts = jobs.get(attempt.job)
        if job_facts is not None:
            attempt = attempts[index] = with_pods(attempt, job_facts, now)
        if attempt.result != RUNNING:
            continue
        if job_facts is None:
            attempts[index] = _vanished(run, attempt, now)
            continue
        judgement = judge(job_facts, attempt, run.spec, now)
        if judgement.report is not None and judgement.exit_code == 0:
            status = STAGE_BY_NAME[attempt.stage].absorb(status, judgement.report) or status
        attempts[index] = _written(attempt, judgement, job_facts, run.spec, status, now)
        judgements[attempt.job] = judgement
    status = _with_attempts(status, accounted(attempts, run.spec))
    return Book(status, observed.jobs, judgements)


def _new_attempt(
    run: Run, status: FineTuneRunStatus, stage: Stage, number: int, job: str, started_at: str
) -> Attempt:
    attempt = Attempt(stage=stage, number=number, job=job, started_at=started_at)
    if stage is not Stage.TRAIN:
        return attempt
    failed = failures(status, stage, Budget.OUT_OF_MEMORY)
    overlay = memory_ladder.rung(run.spec, failed)
    if overlay is None:
        return attempt
    before = max(
        (a for a in status.attempts if a.stage == stage and a.number < number),
        key=lambda a: a.number,
        default=None,
    )
    old = (before.overlay if before else None) or memory_ladder.as_written(run.spec.training)
    changed = memory_ladder.changes_in_words(old, overlay)
    return attempt.model_copy(update={"overlay": overlay, "changed": changed})


def _vanished(run: Run, attempt: Attempt, now: datetime) -> Attempt:
    """An attempt whose Job is not there."""
    if seconds_since(attempt.started_at, now) < UNSEEN_SECONDS:
        return attempt
    if run.spec.suspend or run.spec.cancel:
        reason = Reason.CANCELLED if run.spec.cancel else Reason.SUSPENDED
        return attempt.model_copy(
            update={
                "result": reason.value,
                "failure_class": class_of(reason),
                "finished_at": to_rfc3339(now),
            }
        )
    return attempt.model_copy(
        update={
            "result": Reason.INFRASTRUCTURE.value,
            "failure_class": class_of(Reason.INFRASTRUCTURE),
            "message": attempt.message or f"Job {attempt.job} was deleted before its end was seen",
            "finished_at": to_rfc3339(now),
        }
    )


def _written(
    attempt: Attempt,
    judgement: Judgement,
    job: JobFacts,
    spec: FineTuneRunSpec,
    status: FineTuneRunStatus,
    now: datetime,
) -> Attempt:
    """The attempt with the judgement in it. Exit code and message are kept at first sight."""
    alone = shares(spec, attempt.stage) == 1
    changes: dict[str, object] = _steps(attempt, job, judgement.report if alone else None)
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
            changes["failure_class"] = class_of(Reason.INTERNAL_ERROR)
            changes["message"] = (
                f"stage {attempt.stage.value} ended well but left no report that this operator can read; "
                "use a trainer image of the operator's own version"
            )
    elif judgement.outcome is Outcome.FAILED:
        changes |= {
            "result": judgement.reason.value,
            "failure_class": class_of(judgement.reason),
            "message": judgement.message[:MAX_MESSAGE_LENGTH],
            "finished_at": to_rfc3339(now),
            "last_log_lines": _last_lines(job.log_tail),
        }
    return attempt.model_copy(update=changes) if changes else attempt


def _steps(attempt: Attempt, job: JobFacts, report: StageReport | None) -> dict[str, object]:
    """From which step to which a training went; its report knows better than the end of its log."""
    if attempt.stage is not Stage.TRAIN:
        return {}
    if report is not None and report.training is not None:
        return {"from_step": report.training.resumed_from_step, "to_step": report.training.steps}
    lines = [line for text in job.log_tail or () if (line := ProgressLine.parse(text)) is not None]
    if lines and (share := lines[-1].share) is not None:
        return {"from_step": share.from_step, "to_step": max(lines[-1].step, attempt.to_step or 0)}
    # what has no loss counts something else, such as the MiB of the base model
    steps = [line.step for line in lines if line.stage == attempt.stage and line.loss is not None]
    if not steps:
        return {}
    first = attempt.from_step if attempt.from_step is not None else steps[0] - 1
    return {"from_step": first, "to_step": max(steps[-1], attempt.to_step or 0)}


def _last_lines(log_tail: tuple[str, ...] | None) -> list[str]:
    """The end of the log in plain words: progress lines are for programs."""
    lines = [
        line.rstrip()[:MAX_LOG_LINE_LENGTH]
        for line in log_tail or ()
        if line.strip() and ProgressLine.parse(line) is None
    ]
    return lines[-MAX_LOG_LINES:]


def _with_attempts(status: FineTuneRunStatus, attempts: list[Attempt]) -> FineTuneRunStatus:
    """At most MAX_ATTEMPTS: suspended ones fall off first, then those that were taken away, then the oldest.

    The newest of a stage never falls off.
    """
    attempts = list(attempts)
    forgotten = list(status.forgotten)
    while len(attempts) > MAX_ATTEMPTS:
        newest = {stage: max((a.number for a in attempts if a.stage == stage), default=-1) for stage in Stage}
        old = [attempt for attempt in attempts if attempt.number != newest[attempt.stage]]
        order = [a for reason in _FORGOTTEN_FIRST for a in old if a.result == reason]
        attempt = (order or old)[0]
        attempts.remove(attempt)
        forgotten = with_forgotten(forgotten, attempt)
    return status.model_copy(update={"attempts": attempts, "forgotten": forgotten})
