"""The book of attempts keeps within its limit without losing what budgets are counted from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pydantic.alias_generators import to_camel

from finetune_contract.run_status import PodUse, Reason
from finetune_contract.stage_protocol import ProgressLine, Stage
from finetune_operator.attempts import MAX_ATTEMPTS, read_book
from finetune_operator.failure_classes import Budget
from tests.finetune_operator.samples import (
    NOON,
    a_failed_job,
    a_job,
    a_pod,
    a_report,
    a_run,
    a_status,
    an_attempt,
    at,
    ended,
    seen,
)


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


def test_suspensions_that_fell_off_the_list_stay_free():
    run = a_run(a_status([Stage.DATASET]))
    for number in range(41):
        book = read_book(run, seen(a_job(Stage.TRAIN, number, a_pod())), NOON)
        if number < 40:
            book = book.closed_as({job.name for job in book.jobs}, Reason.SUSPENDED, NOON)
        run = replace(run, status=book.status)

    assert len(book.status.attempts) == MAX_ATTEMPTS
    assert [(entry.result, entry.count) for entry in book.status.forgotten] == [("Suspended", 22)]
    assert book.failures(Stage.TRAIN, Budget.PREEMPTION) == 0


def test_pods_that_a_job_replaced_are_charged_like_attempts():
    used = PodUse(name="a", since=at(0), seconds=9, taken_by="Evicted")
    ended_so = an_attempt(Stage.TRAIN, 0, Reason.EVICTED, pods=[used, used.model_copy(update={"name": "b"})])
    running = an_attempt(Stage.TRAIN, 1, pods=[used])
    run = a_run(a_status([Stage.DATASET], [ended_so, running]))

    book = read_book(run, seen(a_job(Stage.TRAIN, 1, a_pod())), NOON)

    assert book.failures(Stage.TRAIN, Budget.EVICTION) == 3
    assert book.failures(Stage.TRAIN, Budget.PREEMPTION) == 0


def test_a_training_tells_from_which_step_to_which_it_went():
    def lines(*steps: int) -> tuple[str, ...]:
        found = [ProgressLine(stage=Stage.TRAIN, step=n, total_steps=90, loss=1.0) for n in steps]
        fetching = ProgressLine(stage=Stage.TRAIN, step=512, message="fetching the base model (MiB)")
        return tuple(line.to_line() for line in (fetching, *found))

    run = a_run(a_status([Stage.DATASET], [an_attempt(Stage.TRAIN)]))
    first = read_book(run, seen(a_job(Stage.TRAIN, 0, a_pod(), log_tail=lines(31, 32))), NOON)
    again = replace(run, status=first.status)
    second = read_book(again, seen(a_job(Stage.TRAIN, 0, a_pod(), log_tail=lines(40, 41))), NOON)

    attempt = second.status.attempts[-1]
    assert (attempt.from_step, attempt.to_step) == (30, 41)


def test_a_failed_attempt_bears_the_class_of_its_reason_and_twenty_lines():
    run = a_run(a_status([Stage.DATASET], [an_attempt(Stage.TRAIN)]))
    job = a_failed_job(Stage.TRAIN, 33, log_tail=tuple(f"line {n}" for n in range(50)))

    attempt = read_book(run, seen(job), NOON).status.attempts[-1]

    assert (attempt.result, attempt.failure_class, attempt.exit_code) == ("Diverged", "Config", 33)
    assert attempt.last_log_lines == [f"line {n}" for n in range(30, 50)]


@pytest.mark.parametrize(
    "facts",
    [
        {"digest": "d" * 2000},
        {"run_key": "k" * 2000},
        {"base_model": "s3://b/" + "x" * 2000},
        {"documents": 10**30},
    ],
    ids=["digest", "run key", "base model", "documents"],
)
def test_a_report_that_no_status_can_hold_is_one_that_cannot_be_read(facts):
    good = a_report(Stage.DATASET).to_wire()
    dataset = {**good["dataset"], **{to_camel(name): value for name, value in facts.items()}}
    pod = a_pod(ended(0, json.dumps(good | {"dataset": dataset})))
    run = a_run(a_status(attempts=[an_attempt(Stage.DATASET)]))

    book = read_book(run, seen(a_job(Stage.DATASET, 0, pod, complete=True)), NOON)

    assert book.status.attempts[-1].result == Reason.INTERNAL_ERROR
    assert "no report that this operator can read" in book.status.attempts[-1].message
