"""Runs in the queues of a real Kueue: they wait for room, make room for others, and share what there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import lifecycle
from devcluster.access import Access
from devcluster.paths import Instance
from devcluster.progress import Progress
from tests.on_cluster.operator_stand import (
    GPU,
    ROOT,
    Json,
    Stand,
    attempts_of,
    give_gpus,
    load_trainer,
    on_a_gpu,
    standing,
    training,
)

pytestmark = pytest.mark.on_cluster

API = "kueue.x-k8s.io/v1beta2"
QUEUE = "gpus"
OURS = "tests.example/of=kueue"
LABELS = dict([OURS.split("=")])


@pytest.fixture(scope="module")
def kueue(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    instance = Instance(cluster.kubeconfig.parent.name)
    command = [sys.executable, "-m", "devcluster", "up", "--name", instance.name, "kueue"]
    subprocess.run(command, cwd=ROOT, check=True)
    give_gpus(cluster)
    load_trainer(instance, tmp_path_factory.mktemp("trainer"))
    yield instance
    lifecycle.remove_kueue(instance, Progress())


@pytest.fixture
def stand(cluster: Access, kueue: Instance, tmp_path: Path) -> Iterator[Stand]:
    with standing(cluster, kueue, tmp_path) as stand:
        stand.start_operator()
        yield stand
        stand.kubectl("delete", "finetuneruns,jobs", "--all", "--wait=true")
        stand.kubectl(
            "delete", "localqueues,clusterqueues,resourceflavors,priorityclasses", f"--selector={OURS}"
        )


def queue_for(stand: Stand, gpus: int) -> None:
    """A queue of the namespace in which so many GPUs may be in use at once."""
    quotas = {GPU: gpus, "cpu": "8", "memory": "8Gi"}
    resources = [{"name": name, "nominalQuota": quota} for name, quota in quotas.items()]
    flavor = {"name": stand.namespace, "resources": resources}
    cluster_queue = {
        "namespaceSelector": {},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [{"coveredResources": list(quotas), "flavors": [flavor]}],
    }

    def of_kueue(kind: str, name: str, **spec: object) -> Json:
        metadata = {"name": name, "labels": LABELS}
        return {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}

    stand.apply(
        of_kueue("ResourceFlavor", stand.namespace),
        of_kueue("ClusterQueue", stand.namespace, **cluster_queue),
        of_kueue("LocalQueue", QUEUE, clusterQueue=stand.namespace),
    )


def queued(run: Json, **scheduling: str) -> Json:
    run["spec"]["scheduling"] = {"queueName": QUEUE} | scheduling
    return run


def urgent(stand: Stand) -> Json:
    """A run that comes before others, for its pods have a class of priority."""
    metadata = {"name": stand.namespace, "labels": LABELS}
    kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}
    stand.apply(kind | {"metadata": metadata, "value": 1000})
    return queued(on_a_gpu(stand, "urgent", 3), priorityClassName=stand.namespace)


def test_a_run_waits_in_kueues_words_until_another_one_leaves_the_gpu(stand: Stand) -> None:
    queue_for(stand, 1)
    stand.apply(queued(on_a_gpu(stand, "first", 20)))
    stand.until("first", training)
    stand.apply(queued(on_a_gpu(stand, "second", 1)))

    waiting = stand.until("second", lambda s: "insufficient unused quota" in json.dumps(s), 60)
    ended = [stand.phase(name, "Succeeded", 150) for name in ("first", "second")]

    assert "1 more needed" in json.dumps(waiting["conditions"])
    assert [attempts_of(status, "train") for status in ended] == [["Succeeded"], ["Succeeded"]]
    assert ended[1]["usage"]["gpuSeconds"] < 20


def test_a_training_gives_way_to_an_urgent_one_and_loses_no_attempt(stand: Stand) -> None:
    queue_for(stand, 1)
    stand.apply(queued(on_a_gpu(stand, "patient", 25)))
    stand.until("patient", training)

    stand.apply(urgent(stand))
    stand.until("patient", lambda s: "its queue took its place back" in json.dumps(s))
    stand.until("patient", lambda s: "Preempted to accommodate a workload" in json.dumps(s))
    stand.phase("urgent", "Succeeded", 120)
    status = stand.phase("patient", "Succeeded", 150)

    assert attempts_of(status, "train") == ["Succeeded"]
    (train,) = [attempt for attempt in status["attempts"] if attempt["stage"] == "train"]
    assert train["pods"][0]["seconds"] > 0
    assert train["gpuSeconds"] >= 25


def test_a_training_on_two_nodes_gives_way_as_a_whole_and_loses_no_attempt(stand: Stand) -> None:
    queue_for(stand, 2)
    wide = queued(on_a_gpu(stand, "wide", 25))
    wide["spec"]["resources"]["train"]["gpu"]["nodes"] = 2
    stand.apply(wide)
    stand.until("wide", training)

    stand.apply(urgent(stand))
    stand.until("wide", lambda s: "its queue took its place back" in json.dumps(s))
    stand.phase("urgent", "Succeeded", 120)
    status = stand.phase("wide", "Succeeded", 150)

    assert attempts_of(status, "train") == ["Succeeded"]


def test_a_training_whose_queue_a_person_stops_says_so_and_goes_on_when_it_is_let(stand: Stand) -> None:
    queue_for(stand, 1)
    stand.apply(queued(on_a_gpu(stand, "held", 25)))
    stand.until("held", training)
    (workload,) = stand.names("workloads")

    change(stand, "clusterqueue", stand.namespace, stopPolicy="HoldAndDrain")
    stand.until("held", lambda s: f"ClusterQueue {stand.namespace} is inactive" in json.dumps(s), 75)
    change(stand, "workload", workload, active=False)
    change(stand, "clusterqueue", stand.namespace, stopPolicy="None")
    stand.until("held", lambda s: "the Workload is not active; set its spec.active to true" in json.dumps(s))
    change(stand, "workload", workload, active=True)
    status = stand.phase("held", "Succeeded", 150)

    assert attempts_of(status, "train") == ["Succeeded"]


def change(stand: Stand, kind: str, name: str, **spec: object) -> None:
    stand.kubectl("patch", kind, name, "--type=merge", f"--patch={json.dumps({'spec': spec})}")


def test_a_sweep_begins_with_the_pods_that_the_quota_has_room_for(stand: Stand) -> None:
    queue_for(stand, 2)
    run = queued(on_a_gpu(stand, "swept", 5))
    run["spec"]["training"] = {"sweep": {"rank": [1, 2, 3], "parallelism": 3}}
    stand.apply(run)

    status = stand.phase("swept", "Succeeded", 150)

    (attempt,) = [attempt for attempt in status["attempts"] if attempt["stage"] == "train"]
    since = sorted(pod["since"] for pod in attempt["pods"])
    assert since[2] > since[1]
    assert stand.get("job", attempt["job"])["spec"]["parallelism"] == 2
