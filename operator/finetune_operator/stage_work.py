"""The first stage that is not done: start an attempt, follow it, start another one or give up. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from finetune_contract.run_spec import RolloutMode
from finetune_contract.run_status import Attempt, ConditionType, Phase, Reason
from finetune_contract.stage_protocol import Stage
from finetune_operator import memory_ladder
from finetune_operator.actions import Action, CreateJob, DeleteJob
from finetune_operator.attempts import Book
from finetune_operator.child_names import job_name
from finetune_operator.conditions import false, unknown
from finetune_operator.failure_classes import Budget, allowed, backoff_seconds, budget_of
from finetune_operator.failures import PODLESS_SECONDS, Judgement, Outcome
from finetune_operator.limits import limit_reached
from finetune_operator.observed import JobFacts, Observed, Run
from finetune_operator.outlook import (
    QUEUED_SECONDS,
    RUNNING_SECONDS,
    STOPPING_SECONDS,
    WAITING_SECONDS,
    Mood,
    Outlook,
    Unhurried,
)
from finetune_operator.progress import idle_seconds, read_progress, started
from finetune_operator.rollout.preflight import obstacle_to_start
from finetune_operator.rollout.states import OBSTACLE_SECONDS
from finetune_operator.rollout.targets import current_target
from finetune_operator.stages import StageDefinition
from finetune_operator.timestamps import in_words, seconds_since, to_rfc3339
from finetune_operator.usage import RUNNING, gpus


def work_on(
    run: Run, book: Book, definition: StageDefinition, observed: Observed, now: datetime
) -> tuple[Book, Outlook]:
    """The first stage that is not done."""
    limit = limit_reached(run, book, definition, now)
    if limit is not None:
        return _give_up(book, definition, limit.reason, limit.message, now)
    latest = book.latest(definition.stage)
    if latest is not None and latest.result == RUNNING:
        return _follow(run, book, definition, latest, observed, now)
    if latest is None:
        return _start(run, book, definition, 0, observed, now)
    return _after_failure(run, book, definition, latest, observed, now)


def _after_failure(
    run: Run, book: Book, definition: StageDefinition, latest: Attempt, observed: Observed, now: datetime
) -> tuple[Book, Outlook]:
    """Give up, wait, or try again."""
    budget = budget_of(latest.result)
    failures = book.failures(definition.stage, budget)
    if (verdict := _hopeless(run, definition, latest, budget, failures)) is not None:
        return _give_up(book, definition, _reason(latest.result), verdict, now)
    wait = backoff_seconds(budget, failures) - seconds_since(latest.finished_at, now)
    if not book.occupied(definition.stage) and wait <= 0:
        return _start(run, book, definition, latest.number + 1, observed, now)
    words = f"{latest.result}: {latest.message or 'no message'}"
    if budget is Budget.FREE:
        words = "waiting for the suspended Job to end"
    elif wait > 0:
        after = in_words(backoff_seconds(budget, failures))
        words += f" (attempt {latest.number + 2} starts {after} after the end)"
    actions: list[Action] = [
        DeleteJob(job.name) for job in book.live_jobs() if job.stage == definition.stage and not job.deleting
    ]
    ran = any(attempt.job == latest.job and attempt.result == RUNNING for attempt in run.status.attempts)
    if ran and not _job_of(book, latest):
        actions.append(DeleteJob(latest.job))  # it is out of sight; should that be wrong, two must not run
    outlook = Outlook(
        definition.phase,
        Mood.WORKING,
        Reason.RETRYING,
        words,
        (unknown(definition.condition, Reason.RETRYING, words),),
        tuple(actions),
        max(1.0, wait) if wait > 0 else stopping_seconds(actions),
    )
    return book, outlook


def _hopeless(
    run: Run, definition: StageDefinition, latest: Attempt, budget: Budget, failures: int
) -> str | None:
    """Why the stage is not tried again, in words; None when it is."""
    words = latest.message or f"Job {latest.job} failed"
    if latest.result == Reason.CUDA_OUT_OF_MEMORY:
        if definition.stage is not Stage.TRAIN:
            return words
        if not memory_ladder.may_help(run.spec, failures, words):
            return f"{words} (no step of spec.policy.outOfMemory is left)" if failures > 1 else words
    limit = allowed(budget, run.spec.policy.retries)
    if limit is None or failures <= limit:
        return None
    if budget is Budget.NONE:
        return words
    return f"{words} (tried {limit + 1} times; spec.policy.retries.{budget.value} is {limit})"


def _give_up(
    book: Book, definition: StageDefinition, reason: Reason, words: str, now: datetime
) -> tuple[Book, Outlook]:
    """The run fails; it is called so once nothing of it runs any more."""
    book, stopping, actions = stop_all(book, reason, now, words)
    words = f"stage {definition.stage.value}: {words}"
    if stopping:
        words = f"{words}; stopping {', '.join(stopping)}"
        wanted = (unknown(definition.condition, reason, words),)
        outlook = Outlook(
            definition.phase, Mood.WORKING, reason, words, wanted, actions, stopping_seconds(actions)
        )
        return book, outlook
    wanted = (false(definition.condition, reason, words),)
    return book, Outlook(Phase.FAILED, Mood.FAILED, reason, words, wanted)


def stop_all(
    book: Book, reason: Reason, now: datetime, words: str = ""
) -> tuple[Book, tuple[str, ...], tuple[Action, ...]]:
    """Delete every Job that may run pods, those too that are not in sight yet.

    Returns:
        The book with their attempts closed, the Jobs that are not known to be gone, and what is to be done.
    """
    live, unseen = book.live_jobs(), book.unseen_jobs()
    leaving = [job.name for job in live if not job.deleting]
    book = book.closed_as({job.name for job in live}, reason, now, words)
    names = (*(job.name for job in live), *unseen)
    return book, names, tuple(DeleteJob(name) for name in (*leaving, *unseen))


def stopping_seconds(actions: Sequence[Action]) -> float:
    """When Jobs that are to go are looked at again: once there is nothing to do but wait, their events tell."""
    return STOPPING_SECONDS if actions else WAITING_SECONDS


def _waiting_seconds(judgement: Judgement | None, job: JobFacts | None, now: datetime) -> float:
    """When an attempt that waits is looked at again, should no event tell of it before."""
    if judgement is None or job is None:
        return STOPPING_SECONDS  # no event tells that it never came
    refused = not job.pods and seconds_since(job.created_at, now) > PODLESS_SECONDS
    if job.suspended or refused or any(pod.unschedulable for pod in job.pods):
        return Unhurried(QUEUED_SECONDS)
    return Unhurried(WAITING_SECONDS)


def _reason(result: str) -> Reason:
    """An attempt's result; one that another version of the operator wrote is a fault of ours."""
    try:
        return Reason(result)
    except ValueError:
        return Reason.INTERNAL_ERROR


def _job_of(book: Book, attempt: Attempt) -> JobFacts | None:
    return next((job for job in book.jobs if job.name == attempt.job), None)


def _start(
    run: Run, book: Book, definition: StageDefinition, number: int, observed: Observed, now: datetime
) -> tuple[Book, Outlook]:
    """Make the Job of an attempt; before the very first one, make sure that the end can be reached."""
    stage = definition.stage
    target = current_target(run)
    first = not book.status.attempts
    if first and run.spec.rollout.mode not in (RolloutMode.NONE, RolloutMode.PUBLISH) and target is not None:
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
    name = job_name(run.name, run.uid, stage, number)
    attempt = book.new_attempt(run, stage, number, name, to_rfc3339(now))
    action = CreateJob(
        stage, number, book.status.run_key, digest, book.status.base_model, overlay=attempt.overlay
    )
    book = book.with_attempt(attempt)
    progress = started(book.status.progress, stage, now)
    book = replace(book, status=book.status.model_copy(update={"progress": progress}))
    words = f"Job {name} started" + (f" with {attempt.changed}" if attempt.changed else "")
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
    run: Run, book: Book, definition: StageDefinition, latest: Attempt, observed: Observed, now: datetime
) -> tuple[Book, Outlook]:
    """An attempt that runs: its progress, or what it waits for."""
    judgement = book.judgements.get(latest.job)
    job = _job_of(book, latest)
    if job is not None and job.deleting:
        words = f"Job {latest.job} was deleted by somebody; a new one follows when its pods have ended"
        return book, Outlook(
            definition.phase,
            Mood.WORKING,
            Reason.RETRYING,
            words,
            (unknown(definition.condition, Reason.RETRYING, words),),
            (),
            Unhurried(WAITING_SECONDS),
        )
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
            _waiting_seconds(judgement, job, now),
        )
    log_tail = job.log_tail if job else None
    progress = read_progress(book.status.progress, definition.stage, log_tail, now)
    book = replace(book, status=book.status.model_copy(update={"progress": progress}))
    longest = run.spec.policy.budget.idle_gpu_stop_seconds
    if longest and job and gpus(run.spec, definition.stage) and idle_seconds(progress, job, now) > longest:
        words = (
            f"spec.policy.budget.idleGPUStopSeconds: no new step for {in_words(longest)} "
            f"({progress.message or 'no message'}); the pod is stopped"
        )
        book = book.closed_as({latest.job}, Reason.GPU_IDLE, now, words)
        closed = book.latest(definition.stage) or latest
        return _after_failure(run, book, definition, closed, observed, now)
    if judgement.reason is Reason.NODE_LOST:
        words = judgement.message
    else:
        words = f"Job {latest.job} is running" + (f": {progress.message}" if progress.message else "")
    return book, Outlook(
        definition.phase,
        Mood.WORKING,
        judgement.reason,
        words,
        (unknown(definition.condition, judgement.reason, words),),
        (),
        Unhurried(RUNNING_SECONDS),
    )
