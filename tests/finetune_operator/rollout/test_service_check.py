"""What readers meet through the target's Service decides whether the new model stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune_contract.run_spec import ServiceCheckSpec
from finetune_contract.run_status import EvaluationStatus, Reason
from finetune_contract.stage_protocol import ReaderQuestion
from finetune_operator.observed import ReaderAnswer, ServiceFacts, Tally
from finetune_operator.rollout.progress import Complete, Failed, Waiting
from finetune_operator.rollout.service_check import (
    TRIES,
    questions_for,
    service_words,
    through_service,
    too_many_errors,
)
from finetune_operator.rollout.target_shape import TargetShape

MODEL = "sha256:new"
QUESTIONS = tuple(
    ReaderQuestion(question=f"What is {number}?", must_contain=[f"No. {number}"]) for number in range(3)
)
RIGHT = tuple(ReaderAnswer(one, f"It is {one.must_contain[0]}.") for one in QUESTIONS)
WRONG = tuple(ReaderAnswer(one, "It is <unused>.") for one in QUESTIONS)
FULL = tuple(ReaderAnswer(one, problem="status 429", tells=False) for one in QUESTIONS)
LOST = tuple(ReaderAnswer(one, problem="status 502") for one in QUESTIONS)
SPEC = ServiceCheckSpec(min_right=0.5)
SERVED = Tally(answered=10, named=((MODEL, 10),))


def seen(watched: Tally = SERVED, **changes: object) -> ServiceFacts:
    return replace(ServiceFacts("site", switching=Tally(answered=5), watched=watched), **changes)  # type: ignore[arg-type]


def through(service: ServiceFacts | None, *, late: bool = False, spec: ServiceCheckSpec = SPEC):  # type: ignore[no-untyped-def]
    return through_service(service, MODEL, spec, QUESTIONS, late)


@pytest.mark.parametrize(
    ("answered", "failed", "rate", "fails"),
    [
        (10, 0, 0.2, False),
        (0, 2, 0.2, False),  # a single request may get lost, and two
        (12, 3, 0.2, False),  # 3 of 15 are just allowed
        (11, 3, 0.2, True),
        (0, 3, 1.0, False),  # 1: never
        (997, 3, 0.0, True),
    ],
)
def test_more_errors_than_the_run_allows_take_the_model_back(answered, failed, rate, fails):
    service = seen(Tally(answered=answered, failed=failed, problem="status 502"), switching=Tally())

    found = too_many_errors(service, ServiceCheckSpec(max_error_rate=rate), TargetShape(), 1)

    assert isinstance(found, Failed) is fails
    if isinstance(found, Failed):
        assert found.reason is Reason.SERVICE_ERRORS
        assert f"failed {failed} of {answered + failed} requests" in found.message
        assert "status 502" in found.message


@pytest.mark.parametrize(
    ("shape", "replicas", "counts"),
    [
        (TargetShape(), 1, True),
        (TargetShape(max_unavailable=1), 2, True),
        (TargetShape(max_unavailable=1), 1, False),
        (TargetShape(recreates=True), 3, False),
    ],
)
def test_errors_of_a_switch_that_lets_all_pods_go_at_once_are_the_users_own_wish(shape, replicas, counts):
    service = seen(Tally(answered=1), switching=Tally(answered=1, failed=8, problem="refused"))

    assert (too_many_errors(service, SPEC, shape, replicas) is not None) is counts


@pytest.mark.parametrize("service", [None, ServiceFacts(problem="no Service selects the pods")])
def test_without_a_service_the_pods_alone_decide_and_the_status_says_so(service):
    assert too_many_errors(service, SPEC, TargetShape(), 1) is None
    assert through(service) == Complete()
    assert service_words(service) == (f"asked the pods alone: {service.problem}" if service else "")


@pytest.mark.parametrize(
    ("tries", "late", "expected"),
    [(0, False, Waiting), (TRIES - 1, False, Waiting), (TRIES, False, Complete), (1, True, Complete)],
)
def test_a_service_that_never_answers_the_operator_is_left_out_after_some_tries(tries, late, expected):
    service = seen(Tally(unanswered=tries, problem="timeout"), switching=Tally(unanswered=60))

    assert isinstance(through(service, late=late), expected)
    if tries:
        assert "never answered the operator" in service_words(service)
        assert "(timeout)" in service_words(service)


def test_a_service_that_answered_before_the_switch_and_not_after_it_is_not_left_out():
    silent = seen(Tally(failed=30, problem="refused"))

    assert isinstance(through(silent), Waiting)
    assert isinstance(through(silent, late=True), Failed)


@pytest.mark.parametrize(
    ("named", "late", "expected"),
    [
        (((MODEL, 1), ("sha256:old", 9)), False, Complete),  # two Deployments behind one Service
        ((("sha256:old", 10),), False, Waiting),
        ((("sha256:old", 10),), True, Failed),
    ],
)
def test_the_service_must_name_the_new_model(named, late, expected):
    found = through(seen(Tally(answered=10, named=named), answers=RIGHT), late=late)

    assert isinstance(found, expected)
    if isinstance(found, Failed):
        assert found.reason is Reason.WRONG_MODEL_SERVED
        assert "sha256:old 10 times" in found.message


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((), Waiting),
        (RIGHT[:2], Waiting),
        (RIGHT, Complete),
        ((*RIGHT[:2], WRONG[2]), Complete),
        ((RIGHT[0], *WRONG[1:]), Failed),
        ((RIGHT[0], *LOST[1:]), Failed),
        ((RIGHT[0], *FULL[1:]), Complete),
        (FULL, Complete),
        ((WRONG[0], *FULL[1:]), Failed),
    ],
)
def test_enough_golden_questions_must_be_answered_right_by_those_that_tell_something(answers, expected):
    found = through(seen(answers=answers))

    assert isinstance(found, expected)
    if isinstance(found, Failed):
        assert found.reason is Reason.WRONG_ANSWERS
        assert "minRight: 0.5" in found.message


def test_left_to_itself_one_right_answer_of_three_tells_a_model_that_serves():
    """The site finds its own sources, and not always those of the evaluation."""
    default = ServiceCheckSpec()

    assert isinstance(through(seen(answers=(RIGHT[0], *WRONG[1:])), spec=default), Complete)
    assert isinstance(through(seen(answers=WRONG), spec=default), Failed)


def test_the_first_wrong_answer_is_shown_with_what_it_had_to_say():
    found = through(seen(answers=(RIGHT[0], WRONG[1], LOST[2])))

    assert isinstance(found, Failed)
    assert "1 of 3 golden questions answered right, 2 are needed" in found.message
    assert "“What is 1?” gave “It is <unused>.”, and must have “No. 1”" in found.message


def test_what_has_not_been_answered_in_time_is_not_waited_for_any_longer():
    assert through(seen(answers=RIGHT[:1]), late=True) == Complete()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((), 'Service "site" answered 15 of 17 requests'),
        (RIGHT, 'Service "site" answered 15 of 17 requests, 3 of 3 golden questions right'),
        (FULL, 'Service "site" answered 15 of 17 requests, no golden question (status 429)'),
    ],
)
def test_the_numbers_are_told(answers, words):
    watched = replace(SERVED, failed=2)

    assert service_words(seen(watched, answers=answers)) == words


@pytest.mark.parametrize(("wanted", "asked"), [(0, 0), (2, 2), (5, 3)])
def test_as_many_questions_are_asked_as_the_run_wants_and_the_evaluation_kept(wanted, asked):
    evaluation = EvaluationStatus(passed=True, reader_questions=list(QUESTIONS))

    assert questions_for(evaluation, ServiceCheckSpec(questions=wanted)) == QUESTIONS[:asked]
    assert questions_for(None, ServiceCheckSpec(questions=wanted)) == ()
