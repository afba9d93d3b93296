"""Kubernetes Events are told once, on transitions."""

from __future__ import annotations

from finetune_contract.run_status import ConditionType, FineTuneRunStatus, Reason
from finetune_operator.conditions import Wanted, false, merged, true, unknown
from finetune_operator.events import RunEvent, transitions
from tests.finetune_operator.samples import NOON


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
