"""Whether readers are served well through the target's Service: the model, the share of errors, right answers. Pure.

A pod that says it is fine may still not be what readers meet. What the Service could not do before the switch, or
cannot do from where the operator runs, is no fault of the model.
"""

from __future__ import annotations

import math

from finetune_contract.answer_text import is_right
from finetune_contract.run_spec import ServiceCheckSpec
from finetune_contract.run_status import EvaluationStatus, Reason
from finetune_contract.stage_protocol import ReaderQuestion
from finetune_operator.observed import ReaderAnswer, ServiceFacts
from finetune_operator.rollout.progress import Complete, Failed, Progress, Waiting
from finetune_operator.rollout.target_shape import TargetShape

LEAST_FAILED = 3
"""A single request may always get lost."""
TRIES = 5
"""So often a Service that never answered is asked after the switch, before it is left out."""
ANSWER_SECONDS = 120.0
"""Longest time for one answer; a small processor writes for a minute."""
SHOWN_CHARACTERS = 200


def questions_for(
    evaluation: EvaluationStatus | None, wanted: ServiceCheckSpec
) -> tuple[ReaderQuestion, ...]:
    """What is asked through the Service."""
    return tuple(evaluation.reader_questions[: wanted.questions]) if evaluation else ()


def too_many_errors(
    service: ServiceFacts | None, wanted: ServiceCheckSpec, shape: TargetShape, replicas: int
) -> Failed | None:
    """Readers meet more errors than the run allows, since the target was changed."""
    if service is None or not service.name:
        return None
    parts = [service.watched]
    if not _stops_answering(shape, replicas):
        parts.append(service.switching)
    failed = sum(part.failed for part in parts)
    asked = failed + sum(part.answered for part in parts)
    if failed < LEAST_FAILED or failed <= wanted.max_error_rate * asked:
        return None
    problem = next((part.problem for part in parts if part.failed), "")
    return Failed(
        Reason.SERVICE_ERRORS,
        f'Service "{service.name}" failed {failed} of {asked} requests since the model was changed, '
        f"{wanted.max_error_rate:.0%} are allowed (rollout.service.maxErrorRate); the last one: {problem}",
    )


def through_service(
    service: ServiceFacts | None,
    model_id: str,
    wanted: ServiceCheckSpec,
    questions: tuple[ReaderQuestion, ...],
    late: bool,
) -> Progress:
    """Compare what the Service answers with what must be served, once all pods are new.

    Args:
        late: it is not waited for any longer.
    """
    if service is None or not service.name:
        return Complete()
    watched = service.watched
    if never_answered(service):
        if watched.unanswered < TRIES and not late:
            return Waiting(f'Service "{service.name}" is asked: {watched.problem or "no answer yet"}')
        return Complete()
    named = dict(watched.named)
    if model_id not in named:
        if not late:
            return Waiting(f'Service "{service.name}" is asked for its model{_others(named)}')
        return Failed(
            Reason.WRONG_MODEL_SERVED,
            f'Service "{service.name}" never names {model_id}, although every pod of the target does'
            f"{_others(named)}; look at the Service's selector and ports",
        )
    if len(service.answers) < len(questions) and not late:
        number = len(service.answers) + 1
        return Waiting(f'Service "{service.name}" is asked question {number} of {len(questions)}')
    return _judged(service, wanted)


def service_words(service: ServiceFacts | None) -> str:
    """What was asked and what came, in numbers."""
    if service is None:
        return ""
    if not service.name:
        return f"asked the pods alone: {service.problem}"
    if never_answered(service):
        problem = service.watched.problem or service.switching.problem or "no request was answered"
        return (
            f'asked the pods alone: Service "{service.name}" never answered the operator, neither before nor after '
            f"the switch ({problem})"
        )
    parts = (service.switching, service.watched)
    answered, failed = sum(part.answered for part in parts), sum(part.failed for part in parts)
    words = f'Service "{service.name}" answered {answered} of {answered + failed} requests'
    telling = [one for one in service.answers if one.tells]
    if telling:
        words += f", {_right(telling)} of {len(telling)} golden questions right"
    elif service.answers:
        words += f", no golden question ({service.answers[0].problem})"
    return words


def never_answered(service: ServiceFacts) -> bool:
    """It may have had nobody to ask before the switch; but then it must answer after it."""
    return not (service.switching.answered or service.watched.answered)


def _judged(service: ServiceFacts, wanted: ServiceCheckSpec) -> Progress:
    telling = [one for one in service.answers if one.tells]
    right, needed = _right(telling), math.ceil(wanted.min_right * len(telling))
    if right >= needed:
        return Complete()
    first = next(one for one in telling if not is_right(one.answer, one.question.must_contain))
    gave = first.problem or f"“{_shown(first.answer)}”"
    return Failed(
        Reason.WRONG_ANSWERS,
        f'Service "{service.name}": {right} of {len(telling)} golden questions answered right, {needed} are needed '
        f"(rollout.service.minRight: {wanted.min_right:g}). The first wrong one: “{_shown(first.question.question)}” "
        f"gave {gave}, and must have “{', '.join(first.question.must_contain)}”",
    )


def _right(answers: list[ReaderAnswer]) -> int:
    return sum(is_right(one.answer, one.question.must_contain) for one in answers)


def _stops_answering(shape: TargetShape, replicas: int) -> bool:
    """The Deployment's own strategy lets all pods go before new ones come."""
    return shape.recreates or shape.max_unavailable >= replicas


def _others(named: dict[str, int]) -> str:
    if not named:
        return ""
    told = ", ".join(f"{model or 'no model'} {count} times" for model, count in sorted(named.items()))
    return f" (it named {told})"


def _shown(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= SHOWN_CHARACTERS else words[: SHOWN_CHARACTERS - 1] + "…"
