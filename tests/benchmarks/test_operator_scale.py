"""What the benchmark of the operator reads out of an audit log, and how it reckons."""

from __future__ import annotations

import json

import pytest

from benchmarks import operator_scale_audit as audit
from benchmarks.operator_scale import read_metrics, slope
from tests.finetune_operator.full_metrics import full_metrics

OPERATOR, SIMULATOR = "finetune-operator", "job-simulator"
RUN, JOB = "run-00007", "run-00007-1a2b3c4d"


def line(
    user: str, verb: str, resource: str, name: str, began: float, *, uri: str = "/x", took: float = 0.5
) -> str:
    resource, _, subresource = resource.partition("/")
    stamp = "2026-03-01T12:00:{:09.6f}Z"
    return json.dumps(
        {
            "user": {"username": user},
            "verb": verb,
            "objectRef": {"resource": resource, "subresource": subresource, "name": name},
            "requestURI": uri,
            "requestReceivedTimestamp": stamp.format(began),
            "stageTimestamp": stamp.format(began + took),
        }
    )


def end_of(stage: str, began: float) -> str:
    uri = "/apis/batch/v1/x/status?fieldManager=job-ended"
    return line(SIMULATOR, "patch", "jobs/status", f"{JOB}-{stage}-0", began, uri=uri)


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([end_of("train", 1), line(OPERATOR, "create", "jobs", f"{JOB}-package-0", 3)], [1.5]),
        ([end_of("evaluate", 1), line(OPERATOR, "patch", "finetuneruns/status", RUN, 2)], [0.5]),
        ([end_of("train", 1), line(OPERATOR, "patch", "finetuneruns/status", RUN, 2)], []),
        ([line(OPERATOR, "create", "jobs", f"{JOB}-train-0", 0), end_of("train", 1)], []),
        ([end_of("train", 1), line(OPERATOR, "create", "jobs", "run-00008-1a2b3c4d-package-0", 3)], []),
        ([end_of("train", 1).replace("job-ended", "job-begun")], []),
    ],
    ids=["next Job", "last status", "progress is no reaction", "what came before", "another run", "no end"],
)
def test_a_reaction_lasts_from_the_end_of_a_job_to_what_comes_next_of_its_run(lines, seconds):
    assert audit.reactions(audit.read(lines)) == pytest.approx(seconds)


def test_requests_are_counted_by_verb_and_resource_without_watches_leases_and_those_of_others():
    lines = [
        line(OPERATOR, "get", "finetuneruns", RUN, 1),
        line(OPERATOR, "list", "jobs", "", 1, uri="/jobs?labelSelector=finetune-operator.io%2Frun-uid%3D7"),
        line(OPERATOR, "list", "finetuneruns", "", 1, uri="/finetuneruns?limit=250"),
        line(OPERATOR, "watch", "jobs", "", 1),
        line(OPERATOR, "update", "leases", "finetune-operator", 1),
        line(SIMULATOR, "patch", "jobs/status", f"{JOB}-train-0", 1),
    ]

    assert audit.asked(audit.read(lines)) == {
        "get finetuneruns": 1,
        "list jobs": 1,
        "list finetuneruns (all)": 1,
    }


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [([], 0.95, 0.0), ([3.0], 0.5, 3.0), ([4.0, 1.0, 2.0, 3.0], 0.5, 3.0), (list(range(100)), 0.95, 95)],
)
def test_a_percentile_is_one_of_the_values(values, share, found):
    assert audit.percentile(values, share) == found


@pytest.mark.parametrize(
    ("points", "found"), [([], 0.0), ([(5, 1.0), (5, 2.0)], 0.0), ([(0, 1.0), (1, 1.5), (2, 2.0)], 0.5)]
)
def test_growth_is_the_slope_of_the_line_that_fits_best(points, found):
    assert slope(points) == pytest.approx(found)


def test_the_benchmark_reads_what_the_operator_tells_with_and_without_labels():
    read = read_metrics(full_metrics().text().decode())

    assert read["passes_total"] == 2
    assert read["queue_depth"] == 2
    assert read["runs"] == 1
    assert read["failed_passes_total"] == 2
