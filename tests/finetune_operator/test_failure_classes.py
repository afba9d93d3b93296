"""One table says of every reason what it is and what it costs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from finetune_contract.exit_reasons import STAGE_REASONS
from finetune_contract.run_spec import RetriesSpec
from finetune_contract.run_status import FailureClass, Reason
from finetune_operator.failure_classes import (
    FAILURES,
    Budget,
    allowed,
    backoff_seconds,
    budget_of,
    class_of,
    taker,
)


@pytest.mark.parametrize("reason", [reason for code, reason in STAGE_REASONS.items() if code])
def test_every_reason_that_a_stage_may_end_with_has_its_row(reason):
    assert reason in FAILURES


def test_every_class_has_a_reason():
    assert {rule.failure_class for rule in FAILURES.values()} == set(FailureClass)


@pytest.mark.parametrize(
    ("reason", "budget"),
    [
        (Reason.PREEMPTED, Budget.PREEMPTION),
        (Reason.EVICTED, Budget.EVICTION),
        (Reason.NODE_LOST, Budget.NODE_LOSS),
        (Reason.CUDA_OUT_OF_MEMORY, Budget.OUT_OF_MEMORY),
        (Reason.IMAGE_PULL_FAILED, Budget.IMAGE_PULL),
        (Reason.STORE_UNAVAILABLE, Budget.INFRASTRUCTURE),
        (Reason.GPU_IDLE, Budget.INFRASTRUCTURE),
        (Reason.SUSPENDED, Budget.FREE),
        (Reason.HOST_OUT_OF_MEMORY, Budget.NONE),
        (Reason.UNSCHEDULABLE, Budget.NONE),
        (Reason.DEADLINE_EXCEEDED, Budget.NONE),
        (Reason.BUDGET_EXCEEDED, Budget.NONE),
        (Reason.DATA_REJECTED, Budget.NONE),
        ("a word from the future", Budget.NONE),
        (Reason.COMPLETED, Budget.NONE),
    ],
)
def test_a_failure_is_charged_to_its_own_budget(reason, budget):
    assert budget_of(reason) is budget


def test_a_reason_that_no_failure_bears_is_a_fault_of_ours():
    assert class_of("a word from the future") is FailureClass.INTERNAL


def test_every_budget_is_a_field_of_the_policy_with_its_own_limit():
    limits = {
        "infrastructure": 1,
        "preemption": 2,
        "eviction": 3,
        "nodeLoss": 4,
        "imagePull": 5,
        "outOfMemory": 6,
    }
    retries = RetriesSpec.model_validate(limits)

    assert {budget.value: allowed(budget, retries) for budget in Budget} == limits | {"none": 0, "free": None}


def test_pauses_grow_to_a_limit_where_a_server_may_need_time():
    assert [backoff_seconds(Budget.INFRASTRUCTURE, n) for n in (1, 2, 3, 20)] == [10, 20, 40, 300]
    assert [backoff_seconds(Budget.IMAGE_PULL, n) for n in (1, 2)] == [10, 20]
    soon = (Budget.PREEMPTION, Budget.EVICTION, Budget.NODE_LOSS, Budget.OUT_OF_MEMORY)
    assert {backoff_seconds(budget, 9) for budget in soon} == {5}
    assert backoff_seconds(Budget.FREE, 9) == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("PreemptionByScheduler: for another", Reason.PREEMPTED),
        ("TerminationByKubelet: pressure", Reason.EVICTED),
        ("DeletionByPodGC: no node", Reason.NODE_LOST),
        ("", Reason.PREEMPTED),
    ],
)
def test_kubernetes_says_who_took_a_pod_away(words, reason):
    assert taker(words) is reason


def test_the_documentation_shows_this_table():
    page = (Path(__file__).parents[2] / "docs" / "failures.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    words = {Budget.NONE: "never", Budget.FREE: "free"}

    assert {reason: (kind, again) for reason, kind, again in found} == {
        reason.value: (rule.failure_class.value, words.get(rule.budget, f"`{rule.budget.value}`"))
        for reason, rule in FAILURES.items()
    }
