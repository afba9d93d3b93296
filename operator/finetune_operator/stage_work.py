"""The first stage that is not done: start an attempt, follow it, start another one or give up. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_contract.run_spec import RolloutMode
from finetune_contract.run_status import Attempt, ConditionType, Phase, Reason
from finetune_operator.actions import CreateJob, DeleteJob
from finetune_operator.attempts import RUNNING, Book
from finetune_operator.child_names import job_name
from finetune_operator.conditions import false, unknown
from finetune_operator.failures import Budget, Outcome, allowed, backoff_seconds, budget_of
from finetune_operator.observed import Observed, Run
from finetune_operator.outlook import RUNNING_SECONDS, STOPPING_SECONDS, WAITING_SECONDS, Mood, Outlook
from finetune_operator.progress import read_progress, started
from finetune_operator.rollout.preflight import obstacle_to_start
from finetune_operator.rollout.states import OBSTACLE_SECONDS
from finetune_operator.stages import StageDefinition
from finetune_operator.timestamps import in_words, seconds_since, to_rfc3339


def work_on(
    run: Run, book: Book, definition: StageDefinition, observed: Observed, now: datetime
) -> tuple[Book, Outlook]:
    """The first stage that is not done."""
    latest = book.latest(definition.stage)
    if latest is not None and latest.result == RUNNING:
        return _follow(run, book, definition, latest, now)
    if latest is None:
        return _start(run, book, definition, 0, observed, now)
    budget = budget_of(latest.result)
    failures = book.failures(definition.stage, budget)
    limit = allowed(budget, run.spec.policy.retries)
    if limit is not None and failures > limit:
        return book, _failed(book, definition, latest, budget, limit)
    wait = backoff_seconds(budget, failures) - seconds_since(latest.finished_at, now)
    if book.occupied(definition.stage) or wait > 0:
        words = f"{latest.result}: {latest.message or 'no message'}"
        if budget is Budget.FREE:
            words = "waiting for the suspended Job to end"
        elif wait > 0:
            words += f" (attempt {latest.number + 2} starts {_backoff_words(budget, failures)} after the end)"
        return book, Outlook(
            definition.phase,
            Mood.WORKING,
            Reason.RETRYING,
            words,
            (unknown(definition.condition, Reason.RETRYING, words),),
            tuple(
                DeleteJob(j.name) for j in book.live_jobs() if j.stage == definition.stage and not j.deleting
            ),
            max(1.0, wait) if wait > 0 else STOPPING_SECONDS,
        )
    return _start(run, book, definition, latest.number + 1, observed, now)


def _backoff_words(budget: Budget, failures: int) -> str:
    return in_words(backoff_seconds(budget, failures))


def _start(
    run: Run, book: Book, definition: StageDefinition, number: int, observed: Observed, now: datetime
) -> tuple[Book, Outlook]:
    """Make the Job of an attempt; before the very first one, make sure that the end can be reached."""
    stage = definition.stage
    target = run.spec.rollout.target.deployment if run.spec.rollout.target else None
    first = not book.status.attempts
    if first and run.spec.rollout.mode is not RolloutMode.NONE and target is not None:
        obstacle = obstacle_to_start(target, observed)
        if obstacle is not None:
            return book, Outlook(
                Phase.PENDING,
                Mood.NEEDS_PERSON,
                obstacle.reason,
                f"nothing is started: {obstacle.message}",
                (false(ConditionType.ROLLED_OUT, obstacle.reason, obstacle.message),),
                (),
                OBSTACLE_SECONDS,
            )
    digest = book.status.dataset.digest if book.status.dataset else ""
    action = CreateJob(stage, number, book.status.run_key, digest, book.status.base_model)
    name = job_name(run.name, run.uid, stage, number)
    book = book.with_attempt(Attempt(stage=stage, number=number, job=name, started_at=to_rfc3339(now)))
    progress = started(book.status.progress, stage, now)
    book = replace(book, status=book.status.model_copy(update={"progress": progress}))
    words = f"Job {name} started"
    return book, Outlook(
        definition.phase,
        Mood.WORKING,
        Reason.RUNNING,
        words,
        (unknown(definition.condition, Reason.RUNNING, words),),
        (action,),
        RUNNING_SECONDS,
    )


def _follow(
    run: Run, book: Book, definition: StageDefinition, latest: Attempt, now: datetime
) -> tuple[Book, Outlook]:
    """An attempt that runs: its progress, or what it waits for."""
    judgement = book.judgements.get(latest.job)
    job = next((job for job in book.jobs if job.name == latest.job), None)
    if judgement is None or judgement.outcome is Outcome.WAITING:
        reason = judgement.reason if judgement else Reason.WAITING
        words = f"Job {latest.job}: {(judgement.message if judgement else '') or 'not seen yet'}"
        person = judgement is not None and judgement.needs_person
        return book, Outlook(
            definition.phase,
            Mood.NEEDS_PERSON if person else Mood.WORKING,
            reason,
            words,
            (unknown(definition.condition, reason, words),),
            (),
            WAITING_SECONDS if judgement and job and job.pods else STOPPING_SECONDS,
        )
    log_tail = job.log_tail if job else None
    progress = read_progress(book.status.progress, definition.stage, log_tail, now)
    book = replace(book, status=book.status.model_copy(update={"progress": progress}))
    words = f"Job {latest.job} is running" + (f": {progress.message}" if progress.message else "")
    return book, Outlook(
        definition.phase,
        Mood.WORKING,
        Reason.RUNNING,
        words,
        (unknown(definition.condition, Reason.RUNNING, words),),
        (),
        RUNNING_SECONDS,
    )


def _failed(book: Book, definition: StageDefinition, latest: Attempt, budget: Budget, limit: int) -> Outlook:
    reason = Reason(latest.result)
    words = latest.message or f"Job {latest.job} failed"
    if budget is not Budget.NONE:
        words += f" (tried {limit + 1} times; spec.policy.retries.{budget.value} is {limit})"
    return Outlook(
        Phase.FAILED,
        Mood.FAILED,
        reason,
        f"stage {definition.stage.value}: {words}",
        (false(definition.condition, reason, words),),
        tuple(DeleteJob(job.name) for job in book.live_jobs() if not job.deleting),
    )
