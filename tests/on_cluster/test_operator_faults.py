"""Faults that meet a run in each of its phases: nothing is lost, nothing is doubled, the end is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.access import Access
from devcluster.paths import Instance
from tests.on_cluster.held_runs import (
    RELEASED_BY,
    ROLLOUT,
    RUNS,
    STAGES,
    TARGET,
    attempts,
    hold_runs,
    pods_at_work,
    run_that,
)
from tests.on_cluster.operator_stand import OPERATOR, Json, Stand, attempts_of, load_trainer, standing

pytestmark = pytest.mark.on_cluster

TOLD_TO_STOP = ("Preempted", "Infrastructure")
"""How a stage ends whose pod somebody deletes: a training saves a checkpoint and says so."""
ONCE_EACH = [(stage, "Succeeded") for stage in STAGES]


@pytest.fixture(scope="module")
def trainer(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    instance = Instance(cluster.kubeconfig.parent.name)
    load_trainer(instance, tmp_path_factory.mktemp("trainer"))
    return instance


@pytest.fixture
def stand(cluster: Access, trainer: Instance, tmp_path: Path) -> Iterator[Stand]:
    with standing(cluster, trainer, tmp_path) as stand:
        stand.start_operator()
        yield stand


def test_an_operator_that_is_killed_in_every_phase_goes_on_with_what_it_finds(stand: Stand) -> None:
    held = hold_runs(stand)

    stand.kill_operator()
    stand.start_operator()
    held.release()
    ended = held.end_well()

    assert {run: attempts(status) for run, status in ended.items()} == dict.fromkeys(RUNS, ONCE_EACH)
    assert {run: len(jobs) for run, jobs in held.jobs().items()} == dict.fromkeys(RUNS, 4)


def test_a_leader_that_is_killed_in_every_phase_is_followed_by_the_other_replica(stand: Stand) -> None:
    held = hold_runs(stand)
    stand.start_operator("second")
    stand.until(ROLLOUT, lambda _: "waiting for the lease: identity=second" in stand.log.read_text())
    assert stand.holder == OPERATOR

    stand.kill_operator()
    held.release()
    ended = held.end_well()

    assert stand.holder == "second"
    assert {run: attempts(status) for run, status in ended.items()} == dict.fromkeys(RUNS, ONCE_EACH)
    assert {run: len(jobs) for run, jobs in held.jobs().items()} == dict.fromkeys(RUNS, 4)


def test_jobs_and_replica_sets_that_somebody_deletes_are_made_anew(stand: Stand) -> None:
    held = hold_runs(stand)
    deleted = {stage: held.job(stage) for stage in STAGES}

    stand.kubectl("delete", "jobs", *deleted.values(), "--wait=false")
    stand.kubectl("delete", "replicasets", f"--selector=app={TARGET}", "--wait=false")
    for stage in STAGES:
        stand.until(stage, lambda s, stage=stage: s["attempts"][-1]["job"] != deleted[stage])
    held.release()
    ended = held.end_well()

    for stage in STAGES:
        assert attempts_of(ended[stage], stage) == ["Infrastructure", "Succeeded"]
    assert attempts(ended[ROLLOUT]) == ONCE_EACH


def test_a_job_that_somebody_deletes_is_made_anew_only_when_its_pod_has_saved_its_work(stand: Stand) -> None:
    stand.apply(run_that(stand, "slow", "train/lingers"))
    stand.until("slow", lambda _: bool(pods_at_work(stand, "slow", "train")))
    (first,) = pods_at_work(stand, "slow", "train")

    stand.kubectl("delete", "job", stand.status("slow")["attempts"][-1]["job"], "--wait=false")
    stand.until("slow", lambda s: "deleted by somebody" in json.dumps(s["conditions"]))
    at_once: set[int] = set()

    def is_replaced(_: Json) -> bool:
        at_work = pods_at_work(stand, "slow", "train")
        at_once.add(len(at_work))
        return bool(at_work) and first not in at_work

    stand.until("slow", is_replaced)
    stand.apply(stand.service(RELEASED_BY))
    status = stand.phase("slow", "Succeeded")

    assert max(at_once) == 1
    assert attempts_of(status, "train") == ["Infrastructure", "Succeeded"]


def test_pods_that_somebody_deletes_cost_an_attempt_and_are_made_anew(stand: Stand) -> None:
    held = hold_runs(stand)

    for stage in STAGES:
        selector = f"--selector=batch.kubernetes.io/job-name={held.job(stage)}"
        stand.kubectl("delete", "pods", selector, "--wait=false")
    stand.kubectl("delete", "pods", f"--selector=app={TARGET}", "--wait=false")
    held.release()
    ended = held.end_well()

    for stage in STAGES:
        first, last = attempts_of(ended[stage], stage)
        assert first in TOLD_TO_STOP
        assert last == "Succeeded"
    assert attempts(ended[ROLLOUT]) == ONCE_EACH


def test_a_stage_that_the_kernel_ends_for_want_of_memory_ends_its_run_and_names_the_field(
    stand: Stand,
) -> None:
    for stage in STAGES:
        stand.apply(run_that(stand, stage, f"{stage}/eats"))

    for stage in STAGES:
        status = stand.phase(stage, "Failed", 120)
        field = (
            "spec.resources.train.memory" if stage in ("train", "evaluate") else "spec.resources.other.memory"
        )

        done = STAGES.index(stage)
        assert attempts(status) == [*ONCE_EACH[:done], (stage, "HostOutOfMemory")]
        assert field in stand.condition(stage, "Ready")["message"]
