"""From the book and the outlook to the status that is written. Pure."""

from __future__ import annotations

from datetime import datetime

from finetune_contract.run_status import ConditionType, FineTuneRunStatus, Reason
from finetune_contract.stage_protocol import Stage
from finetune_operator.attempts import Book
from finetune_operator.conditions import Wanted, false, merged, true, unknown
from finetune_operator.observed import Run
from finetune_operator.outlook import OVER, Mood, Outlook
from finetune_operator.progress import without_estimate
from finetune_operator.stages import STAGES
from finetune_operator.timestamps import to_rfc3339
from finetune_operator.usage import RUNNING, SUCCEEDED, Prices, usage


def status_of(run: Run, book: Book, outlook: Outlook, now: datetime, prices: Prices) -> FineTuneRunStatus:
    """The run's next status."""
    status = book.status
    over = outlook.phase in OVER
    wanted = {condition.type: condition for condition in _stage_conditions(book)}
    wanted |= {condition.type: condition for condition in outlook.conditions}
    wanted |= {
        condition.type: condition for condition in kstatus(outlook.mood, outlook.reason, outlook.message)
    }
    changes: dict[str, object] = {
        "observed_generation": run.generation,
        "phase": outlook.phase,
        "conditions": merged(run.status.conditions, wanted.values(), run.generation, now),
    }
    if status.attempts:
        changes["usage"] = usage(status, run.spec, prices)
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


def kstatus(mood: Mood, reason: Reason, message: str) -> tuple[Wanted, ...]:
    """Ready, Reconciling and Stalled."""
    stalled = mood in (Mood.NEEDS_PERSON, Mood.FAILED)
    working = mood is Mood.WORKING
    ready = mood is Mood.SUCCEEDED
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
