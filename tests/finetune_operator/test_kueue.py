"""Kueue's Workloads in words. The objects have the shape of Kueue's documentation (v1beta2)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.run_status import Reason
from finetune_contract.stage_protocol import Stage
from finetune_operator.failures import Outcome, judge
from finetune_operator.kueue import served_version, words_of
from tests.finetune_operator.samples import NOON, a_job, a_run


def a_workload(
    *conditions: tuple[str, str, str, str], created: str = "2026-03-01T12:00:00Z", **more: Any
) -> Any:
    names = ("type", "status", "reason", "message")
    listed = [dict(zip(names, condition, strict=True)) for condition in conditions]
    return {
        "metadata": {"name": "job-blog-train-0-19797", "creationTimestamp": created},
        "spec": {"active": more.pop("active", True)},
        "status": {"conditions": listed, **more},
    }


NO_QUOTA = (
    "QuotaReserved",
    "False",
    "Pending",
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor l4, 1 more needed",
)
RESERVED = ("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue team")


def test_a_lack_of_quota_is_told_in_kueues_words():
    assert words_of([a_workload(NO_QUOTA)]) == f"Pending: {NO_QUOTA[3]}"


def test_a_queue_that_does_not_exist_is_told():
    missing = ("QuotaReserved", "False", "Inadmissible", "LocalQueue gpu doesn't exist")

    assert words_of([a_workload(missing)]) == "Inadmissible: LocalQueue gpu doesn't exist"


def test_who_was_preempted_is_told_by_whom():
    evicted = ("Evicted", "True", "Preempted", "Preempted to accommodate a workload in the ClusterQueue")

    words = words_of([a_workload(evicted, NO_QUOTA)])

    assert words.startswith("Pending: ")
    assert words.endswith(
        "(taken back before: Preempted: Preempted to accommodate a workload in the ClusterQueue)"
    )


def test_who_loses_its_place_is_told_for_whom_before_the_quota_is_free():
    """Seen with Kueue 0.17: the quota stays reserved until the pods have ended."""
    evicted = ("Evicted", "True", "Preempted", "Preempted to accommodate a workload (UID: 7d4a4f40)")
    admitted = ("Admitted", "True", "Admitted", "The workload is admitted")

    words = words_of([a_workload(RESERVED, evicted, admitted)])

    assert words == "Preempted: Preempted to accommodate a workload (UID: 7d4a4f40)"


def test_a_workload_that_a_person_stopped_says_how_to_go_on():
    evicted = ("Evicted", "True", "Deactivated", "The workload is deactivated")

    words = words_of([a_workload(evicted, active=False)])

    assert "set its spec.active to true (Deactivated: The workload is deactivated)" in words


def test_an_admission_check_that_is_open_is_named():
    checks = [
        {"name": "capacity", "state": "Pending", "message": "waiting for nodes"},
        {"name": "a", "state": "Ready"},
    ]

    words = words_of([a_workload(RESERVED, admissionChecks=checks)])

    assert (
        words == "quota is reserved, its admission checks are not done: capacity Pending: waiting for nodes"
    )


@pytest.mark.parametrize(
    "workloads",
    [
        [],
        [a_workload()],
        [a_workload(RESERVED, ("Admitted", "True", "Admitted", "The workload is admitted"))],
    ],
    ids=["no workload yet", "nothing said yet", "admitted"],
)
def test_nothing_is_said_where_kueue_says_nothing(workloads):
    assert words_of(workloads) == ""


def test_of_two_workloads_the_newer_one_speaks():
    old = a_workload(("QuotaReserved", "False", "Pending", "old"), created="2026-03-01T11:00:00Z")

    assert words_of([a_workload(NO_QUOTA), old]) == f"Pending: {NO_QUOTA[3]}"


def test_the_version_is_the_one_that_the_api_server_prefers():
    assert served_version(
        {"preferredVersion": {"groupVersion": "kueue.x-k8s.io/v1beta2", "version": "v1beta2"}}
    ) == ("v1beta2")
    assert served_version({}) == ""


def test_a_run_that_waits_for_kueue_says_what_kueue_says_and_has_not_failed():
    job = a_job(Stage.TRAIN, suspended=True, queue_words="Pending: 1 more needed")

    judgement = judge(job, None, a_run().spec, NOON)

    assert (judgement.outcome, judgement.reason) == (Outcome.WAITING, Reason.WAITING)
    assert judgement.message == "its queue has not admitted it: Pending: 1 more needed"
