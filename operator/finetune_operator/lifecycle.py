"""The state machine of a run: what is seen goes in, the new status and the next actions come out. Pure.

It looks at what is, not at what happened: called twice with the same facts it decides the same, and called with
what it decided it decides nothing new. It knows no clock, no client and no logger.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_contract.run_spec import LastStage, RolloutMode
from finetune_contract.run_status import (
    ConditionStatus,
    ConditionType,
    FineTuneRunStatus,
    ModelPointer,
    Phase,
    Reason,
    RolloutPhase,
    RolloutStatus,
)
from finetune_contract.stage_protocol import Stage
from finetune_operator.actions import Decision, deletions
from finetune_operator.attempts import Book, read_book
from finetune_operator.conditions import Wanted, false, merged, true, unknown
from finetune_operator.observed import Observed, Run
from finetune_operator.outlook import OVER, REFUSED_SECONDS, Mood, Outlook
from finetune_operator.rollout.champion import drop_below_live
from finetune_operator.rollout.keeping import given_back, keeps_target, kept_waiting, lost_its_model
from finetune_operator.rollout.patch import pointer_to
from finetune_operator.rollout.preflight import Obstacle
from finetune_operator.rollout.quarantine import held_back
from finetune_operator.rollout.record import PUBLISHED, record, record_name
from finetune_operator.rollout.states import (
    AT_ONCE,
    OBSTACLE_SECONDS,
    TOUCHED,
    Step,
    advance,
    holds_unwritten_patch,
)
from finetune_operator.rollout.targets import current_target, targets
from finetune_operator.stage_work import stop_all, stopping_seconds, work_on
from finetune_operator.stages import STAGES
from finetune_operator.status_writing import kstatus, status_of
from finetune_operator.usage import NO_PRICES, Prices

UNTOUCHED = (RolloutMode.NONE, RolloutMode.PUBLISH)
"""Modes that change no Deployment."""
WELL = frozenset({Phase.SUCCEEDED, Phase.UNCHANGED})
ENDS_AT_DATASET = frozenset({Reason.UNCHANGED, Reason.TRAINING_NOT_ASKED})


def is_over(status: FineTuneRunStatus) -> bool:
    """The run ended; nothing will be started for it again."""
    return status.phase in OVER


def children_tell_all(run: Run) -> bool:
    """The next decision needs the run, its Jobs and their pods, and nothing else that may change."""
    return not (is_over(run.status) or asks_for_target(run) or asks_for_record(run))


def asks_for_target(run: Run) -> bool:
    """The decision needs to see the rollout's target."""
    spec = run.spec.rollout
    if keeps_target(run.status) and spec.target is not None:
        return True
    if spec.mode in UNTOUCHED or spec.target is None or is_over(run.status):
        return False
    return not run.status.attempts or run.status.evaluation is not None


def asks_for_record(run: Run) -> bool:
    """The decision may write the target's record, or compares the model with those on it, and so needs to see it."""
    rollout, mode = run.status.rollout, run.spec.rollout.mode
    if is_over(run.status) or mode is RolloutMode.NONE or run.status.artifact is None:
        return False
    if rollout is not None:
        return True
    return mode is RolloutMode.PUBLISH or run.status.evaluation is not None


def rollout_targets(run: Run) -> tuple[str, ...]:
    """Names of the targets that the run may change in this pass, sorted; none while it is not near that."""
    target = current_target(run)
    if target is None or run.status.evaluation is None or not asks_for_target(run):
        return ()
    kept = targets(run.spec) if keeps_target(run.status) else (target,)
    return tuple(sorted(one.name for one in kept))


def decide(run: Run, observed: Observed, now: datetime, prices: Prices = NO_PRICES) -> Decision:
    """The run's next status and actions."""
    if is_over(run.status):
        return _decide_nothing(run, observed, now)
    book = read_book(run, observed, now)
    book, outlook = _look(run, book, observed, now)
    return Decision(status_of(run, book, outlook, now, prices), outlook.actions, outlook.requeue_after)


def only_notes(before: FineTuneRunStatus, decision: Decision) -> bool:
    """Nothing is to be done and nothing was decided: what is new is only how far the run is, or what it waits for."""
    after = decision.status
    return (
        not decision.actions
        and after.phase is before.phase
        and after.rollout == before.rollout
        and [(a.job, a.result) for a in after.attempts] == [(a.job, a.result) for a in before.attempts]
    )


def refused(run: Run, message: str, now: datetime) -> Decision:
    """The API server would not take an action: tell the user, and try again later.

    What an ended run came to stays as it was said: its conditions would speak of the refusal for ever.
    """
    if is_over(run.status):
        return Decision(run.status, (), REFUSED_SECONDS)
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
    rolling = rollout is not None and (rollout.phase in TOUCHED or holds_unwritten_patch(run, observed))
    if run.spec.cancel and not rolling:
        return _stop(run, book, observed, Reason.CANCELLED, now)
    if run.spec.suspend and not rolling:
        return _stop(run, book, observed, Reason.SUSPENDED, now)
    for definition in STAGES:
        if not book.done(definition.stage):
            return work_on(run, book, definition, observed, now)
        if definition.stage is Stage.DATASET and (end := _end_at_dataset(run, book.status)) is not None:
            return book, end
    return book, _after_stages(run, book, observed, now)


def _end_at_dataset(run: Run, status: FineTuneRunStatus) -> Outlook | None:
    """The run ends with its dataset: it would come to a model that is there, or asks for nothing more."""
    wanted, dataset = run.spec.compare_with, status.dataset
    compared = ""
    if wanted is not None and dataset is not None and dataset.changed_documents is not None:
        compared = f"{dataset.changed_documents} of {dataset.documents} documents came, went or changed"
    if wanted is not None and wanted.run_key == status.run_key:
        words = "; ".join(
            filter(None, ("posts, settings and base model are those of spec.compareWith", compared))
        )
        return _ended_at_dataset(Phase.UNCHANGED, Reason.UNCHANGED, f"{words}; nothing is trained")
    if run.spec.last_stage is LastStage.DATASET:
        words = f"{compared}; spec.lastStage asks for the dataset alone".removeprefix("; ")
        return _ended_at_dataset(Phase.SUCCEEDED, Reason.TRAINING_NOT_ASKED, words)
    return None


def _ended_at_dataset(phase: Phase, reason: Reason, words: str) -> Outlook:
    later = (definition.condition for definition in STAGES if definition.stage is not Stage.DATASET)
    conditions = tuple(false(kind, reason, words) for kind in (*later, ConditionType.ROLLED_OUT))
    return Outlook(phase, Mood.SUCCEEDED, reason, words, conditions)


def _stop(run: Run, book: Book, observed: Observed, reason: Reason, now: datetime) -> tuple[Book, Outlook]:
    """Suspend or cancel: no Job may be left running."""
    book, stopping, actions = stop_all(book, reason, now)
    stopping = (*stopping, *(job.name for job in observed.smoke_jobs if job.live))
    actions = (*actions, *deletions(observed.smoke_jobs))
    current = next((d for d in STAGES if not book.done(d.stage)), None)
    cancelled = reason is Reason.CANCELLED
    stage_words = "cancelled by spec.cancel" if cancelled else "suspended by spec.suspend"
    conditions: tuple[Wanted, ...] = ()
    if current is not None:
        conditions = (unknown(current.condition, reason, stage_words),)
    if stopping:
        words = f"stopping {', '.join(stopping)}"
        phase = run.status.phase or Phase.PENDING
        look_again = stopping_seconds(actions)
        return book, Outlook(phase, Mood.WORKING, reason, words, conditions, actions, look_again)
    if cancelled:
        return book, Outlook(
            Phase.CANCELLED, Mood.FAILED, reason, "cancelled by spec.cancel; nothing is running", conditions
        )
    words = "suspended; set spec.suspend to false to go on from the last checkpoint"
    return book, Outlook(Phase.SUSPENDED, Mood.PAUSED, reason, words, conditions)


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
    worse = drop_below_live(replace(run, status=status), observed) if status.rollout is None else ""
    if worse and spec.mode is not RolloutMode.MANUAL:
        words = f"{worse}; nothing was changed, the model is kept at {artifact.uri}"
        return Outlook(
            Phase.NOT_PROMOTED,
            Mood.FAILED,
            Reason.BELOW_LIVE_MODEL,
            words,
            (false(ConditionType.ROLLED_OUT, Reason.BELOW_LIVE_MODEL, words),),
        )
    if spec.mode is RolloutMode.PUBLISH:
        return _publish(run, pointer_to(artifact), observed)
    if spec.mode is RolloutMode.MANUAL and not spec.approved and status.rollout is None:
        words = f"the model passed its gates and waits: set spec.rollout.approved to true ({artifact.uri})"
        words += f"; mind that {worse}" if worse else ""
        held = _held_back(run, pointer_to(artifact), observed)
        words += f"; mind that {held.message}" if held else ""
        return Outlook(
            Phase.AWAITING_APPROVAL,
            Mood.PAUSED,
            Reason.AWAITING_APPROVAL,
            words,
            (unknown(ConditionType.ROLLED_OUT, Reason.AWAITING_APPROVAL, words),),
        )
    seen = replace(run, status=status)
    step = advance(seen, pointer_to(artifact), observed, now)
    kept_back = step.obstacle is not None and step.obstacle.reason is Reason.QUARANTINED
    if kept_back and run.by_schedule and spec.mode is not RolloutMode.MANUAL:
        return _left_in_quarantine(step.message, pointer_to(artifact), step.rollout)
    return _roll_out(step)


def _held_back(run: Run, pointer: ModelPointer, observed: Observed) -> Obstacle | None:
    target = current_target(run)
    return held_back(run.namespace, target.name if target else "", pointer, observed.quarantine)


def _left_in_quarantine(cause: str, pointer: ModelPointer, rollout: RolloutStatus | None) -> Outlook:
    """A schedule's run does not wait for a person: the runs for posts that change later would wait behind it."""
    left = (
        f", and {', '.join(rollout.done)} serves it already" if rollout is not None and rollout.done else ""
    )
    words = f"not rolled out{left}; the model is kept at {pointer.uri}, and the schedule goes on. {cause}"
    reason = Reason.QUARANTINED
    if rollout is not None:
        over = {"phase": RolloutPhase.ROLLED_BACK, "reason": reason.value, "message": words[:1024]}
        rollout = rollout.model_copy(update=over)
    told = false(ConditionType.ROLLED_OUT, reason, words)
    return Outlook(Phase.NOT_PROMOTED, Mood.FAILED, reason, words, (told,), rollout=rollout)


def _publish(run: Run, pointer: ModelPointer, observed: Observed) -> Outlook:
    """Only say which model should be served; somebody else takes the Deployment there."""
    target = current_target(run)
    name = target.name if target else ""
    held = _held_back(run, pointer, observed)
    if held is not None and run.by_schedule:
        return _left_in_quarantine(held.message, pointer, None)
    if held is not None:
        return Outlook(
            Phase.ROLLING_OUT,
            Mood.NEEDS_PERSON,
            held.reason,
            held.message,
            (unknown(ConditionType.ROLLED_OUT, held.reason, held.message),),
            requeue_after=OBSTACLE_SECONDS,
        )
    words = (
        f"{pointer.model_id} is published in ConfigMap {record_name(name)} for deployment/{name}; "
        "spec.rollout.mode is Publish, so nothing was changed"
    )
    return Outlook(
        Phase.SUCCEEDED,
        Mood.SUCCEEDED,
        Reason.COMPLETED,
        words,
        (false(ConditionType.ROLLED_OUT, Reason.PUBLISHED, words),),
        (record(run, name, pointer, None, PUBLISHED, observed.history, observed.quarantine),),
    )


def _roll_out(step: Step) -> Outlook:
    """A step of the rollout in the run's words."""
    rollout = step.rollout
    phase = rollout.phase if rollout else None
    if phase in (RolloutPhase.SUCCEEDED, RolloutPhase.SUPERSEDED):
        wanted = true(ConditionType.ROLLED_OUT, Reason.COMPLETED, step.message)
        if phase is RolloutPhase.SUPERSEDED:
            wanted = false(ConditionType.ROLLED_OUT, Reason.SUPERSEDED, step.message)
        return Outlook(
            Phase.SUCCEEDED,
            Mood.SUCCEEDED,
            Reason.COMPLETED,
            step.message,
            (wanted,),
            step.actions,
            rollout=rollout,
        )
    if rollout is not None and phase in (RolloutPhase.ROLLED_BACK, RolloutPhase.ROLLBACK_FAILED):
        cause = Reason(rollout.reason)
        reason = Reason.ROLLBACK_FAILED if phase is RolloutPhase.ROLLBACK_FAILED else cause
        failed = Phase.ROLLED_BACK if rollout.patched_at else Phase.NOT_PROMOTED
        words = "; ".join(filter(None, (rollout.message, rollout.quarantine)))
        return Outlook(
            Phase.CANCELLED if reason is Reason.CANCELLED else failed,
            Mood.FAILED,
            reason,
            words,
            (false(ConditionType.ROLLED_OUT, reason, words),),
            step.actions,
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
    """An ended run: say that its newest generation was seen and whether a target waits for its model, and stop what
    should not run."""
    waiting = kept_waiting(run, observed)
    news = (*_ready_again(run.status), *_kept(run, observed, waiting))
    conditions = merged(run.status.conditions, news, run.generation, now)
    status = run.status.model_copy(update={"observed_generation": run.generation, "conditions": conditions})
    stray = (*deletions(observed.jobs), *deletions(observed.smoke_jobs))
    if (back := given_back(run, observed)) is not None:
        rollout, patch = back
        again = AT_ONCE if len(targets(run.spec)) > 1 else None  # another one may have been made anew with it
        return Decision(status.model_copy(update={"rollout": rollout}), (*stray, patch), again)
    return Decision(status, stray, OBSTACLE_SECONDS if waiting else None)


def _kept(run: Run, observed: Observed, waiting: Obstacle | None) -> tuple[Wanted, ...]:
    """What is said of an ended run's targets: that one waits for its model, and that none does any more."""
    if waiting is not None:
        return (false(ConditionType.ROLLED_OUT, waiting.reason, waiting.message),)
    told = next((one for one in run.status.conditions if one.type == ConditionType.ROLLED_OUT), None)
    if told is None or told.status is not ConditionStatus.FALSE or not keeps_target(run.status):
        return ()
    lost = observed.target is not None and lost_its_model(run, observed.target)
    if lost and (given_back(run, observed) is None or len(targets(run.spec)) > 1):
        return ()
    words = "no Deployment that was made anew waits for its model any more"
    return (true(ConditionType.ROLLED_OUT, Reason.COMPLETED, words),)


def _ready_again(status: FineTuneRunStatus) -> tuple[Wanted, ...]:
    """A run that ended well, and bears the words of something that was refused later, is Ready again."""
    told = {condition.type: condition for condition in status.conditions}
    ready, rolled_out = told.get(ConditionType.READY), told.get(ConditionType.ROLLED_OUT)
    if status.phase not in WELL or ready is None or ready.status is ConditionStatus.TRUE:
        return ()
    reason, words = Reason.COMPLETED, rolled_out.message if rolled_out is not None else ""
    if rolled_out is not None and rolled_out.reason in ENDS_AT_DATASET:
        reason = Reason(rolled_out.reason)
    return kstatus(Mood.SUCCEEDED, reason, words)
