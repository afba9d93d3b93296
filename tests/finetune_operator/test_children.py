"""Jobs and pods, packed and unpacked."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator import reading
from finetune_operator.children import JOB_NAME_LABEL, children_of, job_ended, may_begin, pods_may_be_older

LABELS = {"finetune-operator.io/stage": "train", "finetune-operator.io/attempt": "1"}


def a_job(version: str, **status: Any) -> dict[str, Any]:
    metadata = {"name": f"job-{version}", "labels": LABELS, "resourceVersion": version, "managedFields": [{}]}
    return {"metadata": metadata, "spec": {"suspend": True, "template": {"spec": {}}}, "status": status}


def a_pod(version: str, phase: str) -> dict[str, Any]:
    containers = [{"name": "stage", "state": {"running": {"startedAt": "2026-03-01T12:00:00Z"}}}]
    metadata = {
        "name": f"pod-{version}",
        "labels": {JOB_NAME_LABEL: "job-1"},
        "resourceVersion": version,
    }
    return {
        "metadata": metadata,
        "spec": {"nodeName": "node-1", "containers": [{"name": "stage"}]},
        "status": {"phase": phase, "containerStatuses": containers},
    }


def ended(kind: str) -> list[dict[str, str]]:
    return [{"type": kind, "status": "True"}]


def test_what_was_packed_is_read_as_before():
    job, pod = a_job("1", active=1), a_pod("2", "Running")

    jobs, pods = children_of([job], [pod]).jobs_and_pods()

    assert reading.job(jobs[0], (), None) == reading.job(job, (), None)
    assert [reading.pod(body) for body in reading.pods_of(jobs[0], pods)] == [reading.pod(pod)]


def test_versions_tell_those_that_go_on_from_those_that_ended():
    jobs = [a_job("1"), a_job("2", conditions=ended("Complete")), a_job("3", conditions=ended("Failed"))]
    pods = [a_pod("4", "Pending"), a_pod("5", "Running"), a_pod("6", "Succeeded"), a_pod("7", "Failed")]

    children = children_of(jobs, pods)

    assert children.versions == {"1", "2", "3", "4", "5", "6", "7"}
    assert children.open_versions == {"1", "4", "5"}


def test_templates_and_who_wrote_what_are_not_kept():
    many = [a_job(str(number)) for number in range(4)]
    heavy = [job | {"spec": job["spec"] | {"template": {"spec": {"env": ["x" * 50_000]}}}} for job in many]

    assert children_of(heavy, []).packed == children_of(many, []).packed


@pytest.mark.parametrize(
    ("job", "has_ended", "begins"),
    [
        (a_job("1"), False, True),
        (a_job("1", conditions=ended("Complete")), True, False),
        (a_job("1", conditions=ended("Failed")), True, False),
        (a_job("1", conditions=[{"type": "Failed", "status": "False"}]), False, True),
        (a_job("1", conditions=ended("FailureTarget")), False, True),
        ({"metadata": {"deletionTimestamp": "2026-03-01T12:00:00Z"}}, False, False),
    ],
)
def test_a_job_ends_by_its_conditions_and_begins_nothing_once_it_is_told_to_stop(job, has_ended, begins):
    assert job_ended(job) is has_ended
    assert may_begin(job) is begins


OVER = a_job("1", conditions=ended("Complete"))


@pytest.mark.parametrize(
    ("jobs", "pods", "again"),
    [
        ([OVER], [a_pod("2", "Succeeded")], False),
        ([OVER], [a_pod("2", "Failed"), a_pod("3", "Succeeded")], False),
        ([a_job("1")], [a_pod("2", "Running")], False),
        ([a_job("1")], [a_pod("2", "Succeeded")], False),
        ([OVER], [a_pod("2", "Running")], True),
        ([OVER], [a_pod("2", "Failed"), a_pod("3", "Running")], True),
        ([OVER], [], True),
        ([], [], False),
    ],
    ids=[
        "both ended",
        "the second of two ended",
        "both go on",
        "the Job will end",
        "the pod had not ended yet",
        "one of two had not",
        "the pod was not there yet",
        "nothing there",
    ],
)
def test_pods_are_older_than_their_job_where_the_job_has_ended_and_they_have_not(jobs, pods, again):
    assert pods_may_be_older(jobs, pods) is again
