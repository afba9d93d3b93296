"""Faults of the node and of the API server, met in each phase. Not beside other tests: they would be met as well."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.utils import parse_quantity

from devcluster import namespaces
from devcluster.access import Access
from devcluster.paths import Instance
from devcluster.processes import Processes
from tests.on_cluster.held_runs import RUNS, STAGES, attempts, hold_runs
from tests.on_cluster.operator_stand import ROOT, TRAINER_IMAGE, Stand, load_trainer, standing

pytestmark = pytest.mark.on_cluster

ONCE_EACH = [(stage, "Succeeded") for stage in STAGES]
NEXT_STAGE_ASKS = {"dataset": {"train": "300m"}, "train": {"other": "300m"}, "package": {"train": "300m"}}
"""CPU of the stage after the one in which a run is held; more than what all that are held leave behind."""
AWAY_SECONDS = 20.0
"""More than the operator's Lease lasts."""


@pytest.fixture(scope="module")
def instance(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    instance = Instance(cluster.kubeconfig.parent.name)
    load_trainer(instance, tmp_path_factory.mktemp("trainer"))
    return instance


@pytest.fixture
def stand(cluster: Access, instance: Instance, tmp_path: Path) -> Iterator[Stand]:
    with standing(cluster, instance, tmp_path) as stand:
        stand.start_operator()
        yield stand


@pytest.mark.parametrize("program", ["kubelet", "apiserver"])
def test_a_node_whose_program_was_away_goes_on_in_every_phase(
    stand: Stand, instance: Instance, program: str
) -> None:
    held = hold_runs(stand)
    processes = Processes(instance, namespaces.running_keeper(instance))

    processes.stop(program)
    time.sleep(AWAY_SECONDS)
    command = [sys.executable, "-m", "devcluster", "up", "--name", instance.name, "node"]
    subprocess.run(command, cwd=ROOT, check=True)
    held.release()
    ended = held.end_well()

    assert {run: attempts(status) for run, status in ended.items()} == dict.fromkeys(RUNS, ONCE_EACH)
    assert {run: len(jobs) for run, jobs in held.jobs().items()} == dict.fromkeys(RUNS, 4)


def test_runs_on_a_full_node_say_so_in_the_schedulers_words_and_go_on_when_there_is_room(
    stand: Stand,
) -> None:
    held = hold_runs(stand, NEXT_STAGE_ASKS)
    stand.apply(what_fills_the_node(stand))
    stand.kubectl("wait", "--for=condition=Ready", "pod/filler", "--timeout=60s")

    held.release()
    for run in NEXT_STAGE_ASKS:
        stand.until(run, lambda s: "Insufficient cpu" in json.dumps(s.get("conditions")), 60)
    stand.kubectl("delete", "pod", "filler")
    ended = held.end_well()

    assert {run: attempts(status) for run, status in ended.items()} == dict.fromkeys(RUNS, ONCE_EACH)


def what_fills_the_node(stand: Stand) -> dict[str, object]:
    """A pod that asks for all CPU that nobody has asked for."""
    (node,) = json.loads(stand.cluster.kubectl("get", "nodes", "--output=json"))["items"]
    pods = json.loads(stand.cluster.kubectl("get", "pods", "--all-namespaces", "--output=json"))["items"]
    asked = sum(
        parse_quantity(((container.get("resources") or {}).get("requests") or {}).get("cpu", "0"))
        for pod in pods
        if pod["status"].get("phase") in ("Pending", "Running")
        for container in pod["spec"]["containers"]
    )
    left = parse_quantity(node["status"]["allocatable"]["cpu"]) - asked
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "main",
        "image": TRAINER_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sleep", "600"],
        "resources": {"requests": {"cpu": f"{int(left * 1000) - 5}m"}},
        "securityContext": restricted,
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler"}, "spec": spec}
