"""Schedules on a real API server: runs by the clock, by Git and by what has changed, and no run twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from devcluster.access import Access
from devcluster.errors import CommandFailed
from tests.on_cluster.operator_stand import ROOT, Json, Stand, stand_at_work

pytestmark = pytest.mark.on_cluster

NEWS = "news"
"""A Service of this name makes the stand-in's dataset another one."""


@pytest.fixture(scope="module")
def stand(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    crd = ROOT / "crds/finetuneschedules.yaml"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={crd}")
    cluster.kubectl(
        "wait", "--for=condition=Established", "crd/finetuneschedules.finetune-operator.io", "--timeout=60s"
    )
    with stand_at_work(cluster, tmp_path_factory) as stand:
        yield stand


def a_schedule(stand: Stand, name: str, **spec: Any) -> Json:
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneSchedule",
        "metadata": {"name": name},
        "spec": {"template": {"spec": stand.run(name)["spec"]}} | spec,
    }


def runs_of(stand: Stand, schedule: str) -> dict[str, str]:
    """Phase of each of its runs, the newest last."""
    selector = f"--selector=finetune-operator.io/schedule={schedule}"
    listed = json.loads(stand.kubectl("get", "finetuneruns", selector, "--output=json"))["items"]
    listed.sort(key=lambda run: run["metadata"]["creationTimestamp"])
    return {run["metadata"]["name"]: run.get("status", {}).get("phase", "") for run in listed}


def wait_for(stand: Stand, schedule: str, holds: Any, seconds: float) -> Json:
    """The schedule's status as soon as it is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status: Json = stand.get("finetuneschedule", schedule).get("status", {})
        if holds(status):
            return status
        time.sleep(1)
    raise AssertionError(
        f"not so after {seconds} s: {json.dumps(status, indent=1)}\n{runs_of(stand, schedule)}\n"
        f"{stand.log.read_text()[-3000:]}"
    )


def last_phase(status: Json) -> str:
    return str((status.get("lastRun") or {}).get("phase", ""))


def test_posts_that_change_train_a_model_and_those_that_do_not_cost_no_gpu_stage(stand: Stand) -> None:
    content = {"minChangedPosts": 5, "debounceSeconds": 0, "checkEverySeconds": 60}
    stand.apply(a_schedule(stand, "posts", onContentChange=content))
    first = wait_for(stand, "posts", lambda s: last_phase(s) == "Succeeded", 90)["lastRun"]["name"]

    quiet = wait_for(stand, "posts", lambda s: (s.get("content") or {}).get("check"), 120)
    check = quiet["content"]["check"]
    stand.apply(stand.service(NEWS))
    changed = wait_for(stand, "posts", lambda s: (s.get("lastRun") or {}).get("name") != first, 120)
    second = wait_for(stand, "posts", lambda s: last_phase(s) == "Succeeded", 90)
    stand.kubectl("delete", "service", NEWS)

    assert quiet["content"]["changedPosts"] == 0
    assert changed["lastRun"]["cause"] == "ContentChange"
    assert second["live"]["run"] == second["lastRun"]["name"]
    assert second["live"]["datasetDigest"] == "e" * 64
    assert first in runs_of(stand, "posts")
    assert check not in runs_of(stand, "posts"), "of the checks only the newest is kept"
    jobs = stand.kubectl("get", "jobs", "--output=jsonpath={.items[*].metadata.name}").split()
    assert not [job for job in jobs if "check" in job and "train" in job]


def test_each_revision_makes_one_run_though_operators_die(stand: Stand) -> None:
    for revision in ("1", "2"):
        stand.apply(a_schedule(stand, "git", revision=revision))
        wait_for(stand, "git", lambda s: s.get("active"), 30)
        stand.kill_operator()
        stand.start_operator()
        wait_for(stand, "git", lambda s: s.get("revision") and last_phase(s) == "Succeeded", 120)

    assert list(runs_of(stand, "git").values()) == ["Succeeded", "Succeeded"]
    status = stand.get("finetuneschedule", "git")["status"]
    assert status["revision"] == "2"
    assert "the newest model is that of git-r-" in status["conditions"][0]["message"]


def test_the_clock_makes_a_run_each_minute_that_ends_unchanged_and_old_ones_go(stand: Stand) -> None:
    stand.apply(a_schedule(stand, "clock", cron="* * * * *", history={"succeeded": 1}))
    status = wait_for(stand, "clock", lambda s: last_phase(s) == "Unchanged", 200)

    (trained, unchanged) = runs_of(stand, "clock").items()
    assert trained == (status["live"]["run"], "Succeeded")
    assert unchanged[1] == "Unchanged"
    assert int(unchanged[0].rsplit("-", 1)[1]) > int(trained[0].rsplit("-", 1)[1])
    table = stand.kubectl("get", "fts", "clock")
    assert table.split("\n")[0].split() == [
        "NAME",
        "CRON",
        "SUSPEND",
        "LAST",
        "RUN",
        "PHASE",
        "CHANGED",
        "AGE",
    ]
    stand.kubectl("delete", "fts", "clock")


@pytest.mark.parametrize(
    ("name", "spec", "words"),
    [
        ("idle", {}, "says nothing about when to train"),
        ("daily", {"cron": "@daily"}, "write five fields as in a crontab"),
        ("zone", {"cron": "0 3 * * 1", "timeZone": "not a zone"}, "such as Europe/Berlin"),
        ("s" * 31, {"revision": "1"}, "metadata.name is longer than 30 characters"),
        ("often", {"onContentChange": {"checkEverySeconds": 5}}, "onContentChange.checkEverySeconds"),
        ("none", {"revision": "1", "history": {"succeeded": 0}}, "spec.history.succeeded"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused_in_words(
    stand: Stand, name: str, spec: Json, words: str
) -> None:
    with pytest.raises(CommandFailed) as refused:
        stand.apply(a_schedule(stand, name, **spec))

    assert words in str(refused.value)


def test_the_example_is_accepted(stand: Stand) -> None:
    schedule = yaml.safe_load((ROOT / "examples/gemma-2-2b/finetuneschedule.yaml").read_text())
    del schedule["metadata"]["namespace"]
    stand.kubectl("create", "--dry-run=server", "--filename=-", text=json.dumps(schedule))


def test_a_template_is_checked_as_a_run_is(stand: Stand) -> None:
    schedule = a_schedule(stand, "bad", revision="1")
    schedule["spec"]["template"]["spec"]["training"] = {"microBatchSize": 3}
    with pytest.raises(CommandFailed, match="microBatchSize does not divide effectiveBatchSize"):
        stand.apply(schedule)
    schedule["spec"]["template"]["spec"] |= {"training": {}, "compareWith": {"runKey": "a" * 64}}
    with pytest.raises(CommandFailed, match="compareWith is filled in by the schedule"):
        stand.apply(schedule)


def test_a_time_that_cannot_be_read_is_said_in_the_status(stand: Stand) -> None:
    stand.apply(a_schedule(stand, "odd", cron="99 3 * * 1"))

    status = wait_for(stand, "odd", lambda s: s.get("conditions"), 10)

    (ready,) = [found for found in status["conditions"] if found["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert "spec.cron: '99 3 * * 1' cannot be read" in ready["message"]


def test_a_deleted_schedule_takes_its_runs_with_it(stand: Stand) -> None:
    stand.apply(a_schedule(stand, "brief", revision="1"))
    wait_for(stand, "brief", lambda s: s.get("active"), 30)

    stand.kubectl("delete", "fts", "brief")

    end = time.monotonic() + 60
    while runs_of(stand, "brief") and time.monotonic() < end:
        time.sleep(1)
    assert runs_of(stand, "brief") == {}
