"""The state machine of a run: what is seen goes in, the new status and the next actions come out. Pure.

It looks at what is, not at what happened: called twice with the same facts it decides the same, and called with
what it decided it decides nothing new. It knows no clock, no client and no logger.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from finetune_contract.run_spec import RolloutMode
from finetune_contract.run_status import (
    Attempt,
    ConditionType,
    FineTuneRunStatus,
    Phase,
    Reason,
    RolloutPhase,
    RolloutStatus,
)
from finetune_contract.stage_protocol import Stage
from finetune_operator.actions import Action, CreateJob, Decision, DeleteJob
from finetune_operator.attempts import RUNNING, SUCCEEDED, Book, read_book
from finetune_operator.child_names import job_name
from finetune_operator.conditions import Wanted, false, merged, true, unknown
from finetune_operator.failures import Budget, Outcome, allowed, backoff_seconds, budget_of
from finetune_operator.observed import Observed, Run
from finetune_operator.progress import read_progress, started, without_estimate
from finetune_operator.rollout.patch import pointer_to
from finetune_operator.rollout.preflight import obstacle_to_start
from finetune_operator.rollout.states import OBSTACLE_SECONDS, TOUCHED, Step, advance
from finetune_operator.stages import STAGES, StageDefinition
from finetune_operator.timestamps import in_words, seconds_since, to_rfc3339

RUNNING_SECONDS = 5.0
"""How often the log of a running stage is read."""
WAITING_SECONDS = 15.0
STOPPING_SECONDS = 3.0
REFUSED_SECONDS = 60.0

OVER = frozenset({Phase.SUCCEEDED, Phase.NOT_PROMOTED, Phase.ROLLED_BACK, Phase.FAILED, Phase.CANCELLED})


class Mood(Enum):
    """What kstatus should think of the run."""

    WORKING = auto()
    """Reconciling."""
    NEEDS_PERSON = auto()
    """Stalled, but not for good: it goes on when the obstacle is gone."""
    PAUSED = auto()
    """Neither: the user asked for it."""
    SUCCEEDED = auto()
    FAILED = auto()


@dataclass(frozen=True)
class Outlook:
    """Where the run is, before it is put into the words of a status."""

    phase: Phase
    mood: Mood
    reason: Reason
    message: str
    conditions: tuple[Wanted, ...] = ()
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
    rollout: RolloutStatus | None = None


def is_over(status: FineTuneRunStatus) -> bool:
    """The run ended; nothing will be started for it again."""
    return status.phase in OVER


def is_settled(run: Run) -> bool:
    """Nothing is to be done and the status says so: the cluster need not be looked at."""
    return is_over(run.status) and run.status.observed_generation == run.generation


def asks_for_target(run: Run) -> bool:
    """The decision needs to see the rollout's target."""
    spec = run.spec.rollout
    if spec.mode is RolloutMode.NONE or spec.target is None or is_over(run.status):
        return False
    return not run.status.attempts or run.status.evaluation is not None


def rollout_target(run: Run) -> str | None:
    """Name of the target that the run may change in this pass; None while it is not near that."""
    target = run.spec.rollout.target
    if (
        run.status.evaluation is None
        or target is None
        or target.deployment is None
        or not asks_for_target(run)
    ):
        return None
    return target.deployment.name


def decide(run: Run, observed: Observed, now: datetime) -> Decision:
    """The run's next status and actions."""
    if is_over(run.status):
        return _decide_nothing(run, observed, now)
    book = read_book(run, observed, now)
    book, outlook = _look(run, book, observed, now)
    return Decision(_status(run, book, outlook, now), outlook.actions, outlook.requeue_after)


def refused(run: Run, message: str, now: datetime) -> Decision:
    """The API server would not take an action: tell the user, and try again later."""
    words = f"the API server refuses: {message}; this is tried again every minute"
    conditions = merged(
        run.status.conditions,
        (
            false(ConditionType.READY, Reason.INFRASTRUCTURE, words),
            false(ConditionType.RECONCILING, Reason.INFRASTRUCTURE, words),
            true(ConditionType.STALLED, Reason.INFRASTRUCTURE, words),
        ),
        run.generation,
        now,
    )
    status = run.status.model_copy(
        update={
            "observed_generation": run.generation,
            "phase": run.status.phase or Phase.PENDING,
            "conditions": conditions,
        }
    )
    return Decision(status, (), REFUSED_SECONDS)


def _look(run: Run, book: Book, observed: Observed, now: datetime) -> tuple[Book, Outlook]:
    rollout = book.status.rollout
    rolling = rollout is not None and rollout.phase in TOUCHED
    if run.spec.cancel and not rolling:
        return _stop(run, book, Reason.CANCELLED, now)
    if run.spec.suspend and not rolling:
        return _stop(run, book, Reason.SUSPENDED, now)
    for definition in STAGES:
        if not book.done(definition.stage):
            return _work_on(run, book, definition, observed, now)
    return book, _after_stages(run, book, observed, now)


def _stop(run: Run, book: Book, reason: Reason, now: datetime) -> tuple[Book, Outlook]:
    """Suspend or cancel: no Job may be left running."""
    live = book.live_jobs()
    actions = tuple(DeleteJob(job.name) for job in live if not job.deleting)
    book = book.closed_as({job.name for job in live}, reason, now)
    book = book.closed_as({a.job for a in book.status.attempts if a.result == RUNNING}, reason, now)
    current = next((d for d in STAGES if not book.done(d.stage)), None)
    cancelled = reason is Reason.CANCELLED
    stage_words = "cancelled by spec.cancel" if cancelled else "suspended by spec.suspend"
    conditions: tuple[Wanted, ...] = ()
    if current is not None:
        conditions = (unknown(current.condition, reason, stage_words),)
    if live:
        words = f"stopping {', '.join(job.name for job in live)}"
        phase = run.status.phase or Phase.PENDING
        return book, Outlook(phase, Mood.WORKING, reason, words, conditions, actions, STOPPING_SECONDS)
    if cancelled:
        return book, Outlook(
            Phase.CANCELLED, Mood.FAILED, reason, "cancelled by spec.cancel; nothing is running", conditions
        )
    words = "suspended; set spec.suspend to false to go on from the last checkpoint"
    return book, Outlook(Phase.SUSPENDED, Mood.PAUSED, reason, words, conditions)


def _work_on(
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
    action = CreateJob(stage, number, book.status.run_key, digest)
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


def _after_stages(run: Run, book: Book, observed: Observed, now: datetime) -> Outlook:
    """All stages are done: the verdict, and then the rollout."""
    status = book.status
    evaluation, artifact = status.evaluation, status.artifact
    if evaluation is None or artifact is None:
        words = (
            "the stages ended without a model and a verdict; use a trainer image of the operator's version"
        )
        return Outlook(Phase.FAILED, Mood.FAILED, Reason.INTERNAL_ERROR, words)
    if not evaluation.passed:
        words = f"{evaluation.gate}; the model is kept at {artifact.uri} and was not rolled out"
        return Outlook(
            Phase.NOT_PROMOTED,
            Mood.FAILED,
            Reason.GATES_FAILED,
            words,
            (false(ConditionType.ROLLED_OUT, Reason.GATES_FAILED, words),),
        )
    spec = run.spec.rollout
    if spec.mode is RolloutMode.NONE or spec.target is None:
        words = f"the model is stored at {artifact.uri}; spec.rollout.mode asks for no rollout"
        return Outlook(
            Phase.SUCCEEDED,
            Mood.SUCCEEDED,
            Reason.COMPLETED,
            words,
            (false(ConditionType.ROLLED_OUT, Reason.ROLLOUT_NOT_ASKED, words),),
        )
    if spec.mode is RolloutMode.MANUAL and not spec.approved and status.rollout is None:
        words = f"the model passed its gates and waits: set spec.rollout.approved to true ({artifact.uri})"
        return Outlook(
            Phase.AWAITING_APPROVAL,
            Mood.PAUSED,
            Reason.AWAITING_APPROVAL,
            words,
            (unknown(ConditionType.ROLLED_OUT, Reason.AWAITING_APPROVAL, words),),
        )
    seen = replace(run, status=status)
    return _roll_out(advance(seen, pointer_to(artifact), observed, now))


def _roll_out(step: Step) -> Outlook:
    """A step of the rollout in the run's words."""
    rollout = step.rollout
    phase = rollout.phase if rollout else None
    if phase is RolloutPhase.SUCCEEDED:
        return Outlook(
            Phase.SUCCEEDED,
            Mood.SUCCEEDED,
            Reason.COMPLETED,
            step.message,
            (true(ConditionType.ROLLED_OUT, Reason.COMPLETED, step.message),),
            rollout=rollout,
        )
    if rollout is not None and phase in (RolloutPhase.ROLLED_BACK, RolloutPhase.ROLLBACK_FAILED):
        cause = Reason(rollout.reason)
        reason = Reason.ROLLBACK_FAILED if phase is RolloutPhase.ROLLBACK_FAILED else cause
        cancelled = reason is Reason.CANCELLED
        return Outlook(
            Phase.CANCELLED if cancelled else Phase.ROLLED_BACK,
            Mood.FAILED,
            reason,
            rollout.message,
            (false(ConditionType.ROLLED_OUT, reason, rollout.message),),
            rollout=rollout,
        )
    if rollout is not None and phase is RolloutPhase.ROLLING_BACK:
        cause = Reason(rollout.reason)
        words = f"putting the previous model back: {rollout.message}"
        wanted = false(ConditionType.ROLLED_OUT, cause, words)
        return Outlook(
            Phase.ROLLING_OUT,
            Mood.WORKING,
            cause,
            words,
            (wanted,),
            step.actions,
            step.requeue_after,
            rollout,
        )
    reason = step.obstacle.reason if step.obstacle else Reason.PROGRESSING
    person = step.obstacle is not None and step.obstacle.needs_person
    return Outlook(
        Phase.ROLLING_OUT,
        Mood.NEEDS_PERSON if person else Mood.WORKING,
        reason,
        step.message,
        (unknown(ConditionType.ROLLED_OUT, reason, step.message),),
        step.actions,
        step.requeue_after,
        rollout,
    )


def _decide_nothing(run: Run, observed: Observed, now: datetime) -> Decision:
    """An ended run: only say that its newest generation was seen, and stop what should not run."""
    conditions = merged(run.status.conditions, (), run.generation, now)
    status = run.status.model_copy(update={"observed_generation": run.generation, "conditions": conditions})
    stray = tuple(DeleteJob(job.name) for job in observed.jobs if job.live and not job.deleting)
    return Decision(status, stray, None)


def _status(run: Run, book: Book, outlook: Outlook, now: datetime) -> FineTuneRunStatus:
    status = book.status
    over = outlook.phase in OVER
    wanted = {condition.type: condition for condition in _stage_conditions(book)}
    wanted |= {condition.type: condition for condition in outlook.conditions}
    wanted |= {condition.type: condition for condition in _kstatus(outlook)}
    changes: dict[str, object] = {
        "observed_generation": run.generation,
        "phase": outlook.phase,
        "conditions": merged(run.status.conditions, wanted.values(), run.generation, now),
    }
    if outlook.rollout is not None:
        changes["rollout"] = outlook.rollout
    if not status.start_time and status.attempts:
        changes["start_time"] = status.attempts[0].started_at
    if over:
        changes["completion_time"] = to_rfc3339(now)
    if over or outlook.phase is not run.status.phase:
        changes["progress"] = (
            status.progress
            if any(a.result == RUNNING for a in status.attempts)
            else without_estimate(status.progress)
        )
    return status.model_copy(update=changes)


def _kstatus(outlook: Outlook) -> tuple[Wanted, ...]:
    reason, message = outlook.reason, outlook.message
    stalled = outlook.mood in (Mood.NEEDS_PERSON, Mood.FAILED)
    working = outlook.mood is Mood.WORKING
    ready = outlook.mood is Mood.SUCCEEDED
    return (
        (true if ready else false)(ConditionType.READY, reason, message),
        (true if working else false)(ConditionType.RECONCILING, reason, message if working else ""),
        (true if stalled else false)(ConditionType.STALLED, reason, message if stalled else ""),
    )


def _stage_conditions(book: Book) -> tuple[Wanted, ...]:
    """What is known of every stage; the current one is overwritten by the outlook."""
    known: list[Wanted] = []
    for definition in STAGES:
        if not book.done(definition.stage):
            known.append(unknown(definition.condition, Reason.WAITING, "not started"))
            continue
        if definition.stage is Stage.EVALUATE and book.status.evaluation is not None:
            known.append(_evaluated(book))
            continue
        adopted = book.status.adopted and definition.stage is not Stage.DATASET
        latest = book.latest(definition.stage)
        words = latest.message if latest and latest.result == SUCCEEDED else ""
        known.append(
            true(
                definition.condition,
                Reason.ADOPTED if adopted else Reason.COMPLETED,
                "a finished model with the same run key was found in the store" if adopted else words,
            )
        )
    known.append(unknown(ConditionType.ROLLED_OUT, Reason.WAITING, "not started"))
    return tuple(known)


def _evaluated(book: Book) -> Wanted:
    evaluation = book.status.evaluation
    if evaluation is None:
        raise ValueError("no evaluation to speak of")
    if not evaluation.passed:
        return false(ConditionType.EVALUATED, Reason.GATES_FAILED, evaluation.gate)
    adopted = book.status.adopted
    words = "the verdict of the adopted model holds" if adopted else "all gates hold"
    return true(ConditionType.EVALUATED, Reason.ADOPTED if adopted else Reason.GATES_PASSED, words)
