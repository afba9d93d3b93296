"""Kubernetes Events are told once, on transitions."""

from __future__ import annotations

from finetune_contract.run_status import ConditionType, FineTuneRunStatus, Reason
from finetune_operator import events
from finetune_operator.conditions import Wanted, false, merged, true, unknown
from finetune_operator.events import MOST_OF_A_REASON, Repeats, RunEvent, transitions
from tests.finetune_operator.samples import NOON, UID, later


def a_status(*wanted: Wanted) -> FineTuneRunStatus:
    return FineTuneRunStatus(conditions=merged((), wanted, 1, NOON))


def test_a_new_reason_is_told_and_the_same_again_is_not():
    running = a_status(unknown(ConditionType.TRAINED, Reason.RUNNING, "step 1"))
    further = a_status(unknown(ConditionType.TRAINED, Reason.RUNNING, "step 2"))

    assert transitions(FineTuneRunStatus(), running) == (RunEvent("Running", "Trained: step 1"),)
    assert transitions(running, further) == ()


def test_waiting_is_no_news():
    waiting = a_status(unknown(ConditionType.TRAINED, Reason.WAITING))

    assert transitions(FineTuneRunStatus(), waiting) == ()


def test_a_failure_is_a_warning_told_once_though_two_conditions_say_it():
    failed = a_status(
        false(ConditionType.DATASET_READY, Reason.SOURCE_REJECTED, "401"),
        true(ConditionType.STALLED, Reason.SOURCE_REJECTED, "stage dataset: 401"),
    )

    assert transitions(FineTuneRunStatus(), failed) == (
        RunEvent("SourceRejected", "DatasetReady: 401", True),
    )


def test_an_obstacle_is_a_warning():
    stalled = a_status(true(ConditionType.STALLED, Reason.SECRET_NOT_FOUND, "create it"))

    assert transitions(FineTuneRunStatus(), stalled) == (RunEvent("SecretNotFound", "create it", True),)


def test_success_is_told():
    ready = a_status(true(ConditionType.READY, Reason.COMPLETED, "live"))

    assert transitions(FineTuneRunStatus(), ready) == (RunEvent("Ready", "live"),)


def test_a_rollout_that_nobody_asked_for_is_no_warning():
    stored = a_status(false(ConditionType.ROLLED_OUT, Reason.ROLLOUT_NOT_ASKED, "stored"))

    assert transitions(FineTuneRunStatus(), stored) == (
        RunEvent("RolloutNotAsked", "RolledOut: stored", False),
    )


def told(repeats: Repeats, *said: RunEvent, seconds: float = 0, uid: str = UID) -> int:
    """How many of a run's events are told."""
    return len(repeats.kept_down(uid, said, later(seconds)))


def test_the_same_words_about_a_run_are_told_once_in_ten_minutes():
    repeats = Repeats()
    gone = RunEvent("TargetNotFound", "deployment/chat is not there", True)

    assert told(repeats, gone) == 1
    assert told(repeats, gone, seconds=599) == 0
    assert told(repeats, gone, seconds=600) == 1
    assert told(repeats, gone, seconds=600, uid="another run") == 1


def test_of_one_reason_no_more_than_ten_are_told_an_hour_whatever_their_words():
    repeats = Repeats()

    number = sum(
        told(repeats, RunEvent("Retrying", f"attempt {second}", True), seconds=second)
        for second in range(0, 3600, 15)
    )

    assert number == MOST_OF_A_REASON
    assert told(repeats, RunEvent("Retrying", "an hour later", True), seconds=3600) == 1


def test_what_repeats_does_not_hide_what_is_new():
    repeats = Repeats()
    for second in range(100):
        told(repeats, RunEvent("Unschedulable", f"{second} nodes", True), seconds=second)

    assert told(repeats, RunEvent("ServiceErrors", "RolledOut: taken back", True), seconds=100) == 1


def test_a_target_that_comes_and_goes_every_few_seconds_makes_few_events():
    repeats, number = Repeats(), 0
    there = a_status(unknown(ConditionType.ROLLED_OUT, Reason.PROGRESSING, "rolling out"))
    gone = a_status(true(ConditionType.STALLED, Reason.TARGET_NOT_FOUND, "deployment/chat is not there"))

    for second in range(0, 3600, 4):
        number += told(repeats, *transitions(there, gone), seconds=second)
        number += told(repeats, *transitions(gone, there), seconds=second + 2)

    assert number == 12


def test_what_is_remembered_has_a_bound(monkeypatch):
    monkeypatch.setattr(events, "MOST_REMEMBERED", 3)
    repeats = Repeats()
    for number in range(10):
        told(repeats, RunEvent("Ready", "live"), uid=str(number))

    assert len(repeats) == 3
    assert told(repeats, RunEvent("Ready", "live"), uid="9") == 0
