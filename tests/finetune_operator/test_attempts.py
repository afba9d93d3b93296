"""The book of attempts keeps within its limit without losing what budgets are counted from."""

from __future__ import annotations

from finetune_contract.run_status import Reason
from finetune_contract.stage_protocol import Stage
from finetune_operator.attempts import MAX_ATTEMPTS, read_book
from finetune_operator.failures import Budget
from tests.finetune_operator.samples import NOON, a_job, a_pod, a_run, a_status, an_attempt, seen


def test_preempted_attempts_are_forgotten_before_others_and_still_count():
    failed = an_attempt(Stage.TRAIN, 0, Reason.SOURCE_UNAVAILABLE)
    preempted = [an_attempt(Stage.TRAIN, n, Reason.PREEMPTED) for n in range(1, 19)]
    run = a_run(a_status([Stage.DATASET], [failed, *preempted]))

    book = read_book(run, seen(a_job(Stage.TRAIN, 19, a_pod())), NOON)

    numbers = [attempt.number for attempt in book.status.attempts if attempt.stage == Stage.TRAIN]
    assert len(book.status.attempts) == MAX_ATTEMPTS
    assert numbers[0] == 0
    assert numbers[-1] == 19
    assert book.failures(Stage.TRAIN, Budget.PREEMPTION) == 18
    assert book.failures(Stage.TRAIN, Budget.INFRASTRUCTURE) == 1


def test_a_forgotten_attempts_job_is_not_taken_for_a_new_one():
    run = a_run(a_status([Stage.DATASET], [an_attempt(Stage.TRAIN, 7)]))

    book = read_book(run, seen(a_job(Stage.TRAIN, 2), a_job(Stage.TRAIN, 7, a_pod())), NOON)

    assert [attempt.number for attempt in book.status.attempts] == [0, 7]


def test_a_closed_attempt_is_never_judged_again():
    closed = an_attempt(Stage.TRAIN, 0, Reason.SUSPENDED)
    run = a_run(a_status([Stage.DATASET], [closed]))

    book = read_book(run, seen(a_job(Stage.TRAIN, 0, a_pod(), failed_reason="BackoffLimitExceeded")), NOON)

    assert book.status.attempts[-1] == closed
