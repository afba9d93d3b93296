"""Jobs as the API server takes them: several nodes, a queue that gives and takes, a leader that dies, and the end."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.access import Access
from devcluster.kubectl import tools_folder
from devcluster.paths import Instance
from tests.on_cluster.operator_stand import (
    GPU,
    OPERATOR,
    ROOT,
    TRAINER_IMAGE,
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


@pytest.fixture(scope="module")
def trainer(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    instance = Instance(cluster.kubeconfig.parent.name)
    load_trainer(instance, tmp_path_factory.mktemp("trainer"))
    give_gpus(cluster)
    return instance


@pytest.fixture
def stand(cluster: Access, trainer: Instance, tmp_path: Path) -> Iterator[Stand]:
    with standing(cluster, trainer, tmp_path) as stand:
        yield stand


def on_two_nodes(stand: Stand, name: str, seconds: int) -> Json:
    run = stand.run(name, train_seconds=seconds)
    run["spec"]["resources"]["train"]["gpu"] = {"resourceName": GPU, "nodes": 2}
    return run


def stop_job(stand: Stand, job: str, *, suspend: bool) -> None:
    """What Kueue does to a Job."""
    patch = json.dumps({"spec": {"suspend": suspend}})
    stand.kubectl("patch", "job", job, "--type=merge", f"--patch={patch}")


def test_the_pods_of_two_nodes_find_each_other_by_name_and_end_as_one_attempt(stand: Stand) -> None:
    stand.start_operator()
    stand.apply(on_two_nodes(stand, "wide", 4))

    status = stand.phase("wide", "Succeeded", 150)

    (job,) = [attempt["job"] for attempt in status["attempts"] if attempt["stage"] == "train"]
    logs = stand.kubectl("logs", f"--selector=batch.kubernetes.io/job-name={job}", "--tail=-1")
    assert "node 0 of 2 found" in logs
    assert "node 1 of 2 found" in logs
    assert attempts_of(status, "train") == ["Succeeded"]
    (service,) = [name for name in stand.names("services") if name.startswith("train-")]
    assert stand.get("service", service)["metadata"]["ownerReferences"][0]["name"] == "wide"


def test_the_node_that_failed_gives_the_reason_and_not_the_one_that_was_stopped_for_it(stand: Stand) -> None:
    stand.start_operator()
    stand.apply(on_two_nodes(stand, "torn", 77))

    status = stand.until(
        "torn", lambda s: "CudaOutOfMemory" in [a["result"] for a in s.get("attempts", [])], 120
    )

    attempt = next(found for found in status["attempts"] if found["result"] == "CudaOutOfMemory")
    assert attempt["exitCode"] == 30


def test_five_pods_of_a_sweep_take_turns_on_four_gpus_and_are_one_attempt(stand: Stand) -> None:
    stand.start_operator()
    run = on_a_gpu(stand, "swept", 6)
    run["spec"]["training"] = {"sweep": {"rank": [1, 2, 3, 4, 5], "parallelism": 5}}
    stand.apply(run)
    said: list[str] = []
    steps: set[int] = set()

    def is_over(status: Json) -> bool:
        progress = status.get("progress") or {}
        steps.add(progress.get("step", 0) if progress.get("stage") == "train" else 0)
        said.extend(condition["reason"] for condition in status.get("conditions", []))
        return status.get("phase") == "Succeeded"

    status = stand.until("swept", is_over, 150)

    (attempt,) = [attempt for attempt in status["attempts"] if attempt["stage"] == "train"]
    pods = sorted(attempt["pods"], key=lambda pod: str(pod["since"]))
    assert [pod["since"] > pods[0]["since"] for pod in pods[4:]] == [True]
    assert attempt["gpuSeconds"] >= 5 * 6
    assert attempt["toStep"] == max(steps) == 5 * 6
    assert "Unschedulable" not in said


def test_a_training_that_runs_out_of_gpu_memory_goes_on_in_smaller_steps(stand: Stand) -> None:
    stand.start_operator()
    run = on_a_gpu(stand, "large", 78)
    run["spec"]["training"] = {"effectiveBatchSize": 8, "microBatchSize": 8}
    stand.apply(run)

    status = stand.phase("large", "Succeeded", 150)

    first, second = [attempt for attempt in status["attempts"] if attempt["stage"] == "train"]
    assert (first["result"], second["result"]) == ("CudaOutOfMemory", "Succeeded")
    assert second["overlay"]["microBatchSize"] == 4
    log = stand.kubectl("logs", f"--selector=batch.kubernetes.io/job-name={second['job']}", "--tail=-1")
    assert '"microBatchSize":4' in log.replace(" ", "")


def test_a_run_is_stopped_before_it_costs_more_gpu_hours_than_it_may(stand: Stand) -> None:
    stand.start_operator()
    stand.apply(on_a_gpu(stand, "costly", 300, maxGPUHours=0.004))

    status = stand.phase("costly", "Failed", 150)

    ready = stand.condition("costly", "Ready")
    assert ready["reason"] == "BudgetExceeded"
    assert "spec.policy.budget.maxGPUHours: 0.004 GPU hours are used up" in ready["message"]
    assert 14 <= status["usage"]["gpuSeconds"] < 60
    stand.until("costly", lambda _: not {"Pending", "Running"} & phases_of_pods(stand), 60)


def phases_of_pods(stand: Stand) -> set[str]:
    return set(stand.kubectl("get", "pods", "--output=jsonpath={.items[*].status.phase}").split())


def test_a_training_that_holds_a_gpu_and_does_nothing_is_stopped_and_begun_again(stand: Stand) -> None:
    stand.start_operator()
    stand.apply(on_a_gpu(stand, "stuck", 79, idleGPUStopSeconds=10))

    status = stand.phase("stuck", "Succeeded", 200)

    assert attempts_of(status, "train") == ["GpuIdle", "Succeeded"]
    first = next(attempt for attempt in status["attempts"] if attempt["result"] == "GpuIdle")
    assert "no new step for 10s" in first["message"]


def test_a_queued_job_waits_for_its_queue_and_loses_nothing_when_its_place_is_taken_back(
    stand: Stand,
) -> None:
    """Kueue is played by the test, with the one thing that Kueue does to a Job: it sets `suspend`."""
    stand.start_operator()
    run = stand.run("queued", train_seconds=25)
    run["spec"]["scheduling"] = {"queueName": "gpus"}
    stand.apply(run)
    waiting = stand.until("queued", lambda s: "its queue has not admitted it" in str(s.get("conditions")))
    job = waiting["attempts"][-1]["job"]

    stop_job(stand, job, suspend=False)
    stand.until("queued", training)
    stop_job(stand, job, suspend=True)
    stand.until("queued", lambda s: "its queue took its place back" in str(s.get("conditions")))
    stop_job(stand, job, suspend=False)
    stand.until("queued", lambda s: any(a["stage"] == "evaluate" for a in s["attempts"]), 120)
    evaluation = next(a["job"] for a in stand.status("queued")["attempts"] if a["stage"] == "evaluate")
    stop_job(stand, evaluation, suspend=False)
    status = stand.phase("queued", "Succeeded", 120)

    assert attempts_of(status, "train") == ["Succeeded"]
    assert stand.get("job", job)["status"].get("failed", 0) == 0


def test_a_leader_that_is_killed_is_followed_within_twenty_seconds_by_the_other_replica(stand: Stand) -> None:
    stand.start_operator()
    stand.apply(stand.run("led", train_seconds=40))
    stand.until("led", training)
    stand.start_operator("second")
    stand.until("led", lambda _: "waiting for the lease: identity=second" in stand.log.read_text())
    assert stand.holder == OPERATOR

    stand.kill_operator()
    stand.until("led", lambda _: stand.holder == "second", seconds=20)
    status = stand.phase("led", "Succeeded", 120)

    assert [attempt["result"] for attempt in status["attempts"]] == ["Succeeded"] * 4
    assert len(stand.names("jobs")) == 4


def test_the_release_and_the_namespace_go_within_a_minute_while_a_run_is_training(stand: Stand) -> None:
    """The operator runs in its pod here, by its own service account."""
    helm = [str(tools_folder() / "helm"), f"--namespace={stand.namespace}"]
    environment = {**os.environ, "KUBECONFIG": str(stand.cluster.kubeconfig)}
    stand.kubectl(
        "delete", "rolebindings,roles,serviceaccounts", "--selector=app.kubernetes.io/name=finetune-operator"
    )
    repository, tag = TRAINER_IMAGE.rsplit(":", 1)
    installed = subprocess.run(
        [
            *helm,
            "install",
            "finetune-operator",
            str(ROOT / "charts/finetune-operator"),
            "--wait",
            "--timeout=120s",
            "--set=crds.install=false,replicaCount=2,image.repository=localhost/finetune-operator,image.tag=dev",
            f"--set-string=trainerImage.repository={repository},trainerImage.tag={tag}",
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    stand.apply(stand.run("live", train_seconds=600), stand.run("other", train_seconds=600))
    for name in ("live", "other"):
        stand.until(name, training, 120)

    subprocess.run(
        [*helm, "uninstall", "finetune-operator", "--wait", "--timeout=60s"], env=environment, check=True
    )
    assert stand.names("deployments") == []
    stand.cluster.kubectl("delete", "namespace", stand.namespace, "--wait=true", "--timeout=60s")

    assert stand.namespace not in stand.cluster.kubectl("get", "namespaces", "--output=name")
