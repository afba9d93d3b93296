"""From the API server's JSON to facts."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import ModelPointer
from finetune_contract.stage_protocol import Stage
from finetune_operator import reading
from finetune_operator.errors import InvalidRun
from finetune_operator.observed import EnvEntry, RunKey, Termination
from tests.finetune_operator.samples import UID, a_spec

TARGET = DeploymentTarget(name="chat")


def a_body(**changes: Any) -> dict[str, Any]:
    metadata = {"namespace": "demo", "name": "blog", "uid": UID, "generation": 3, "resourceVersion": "9"}
    return {"metadata": metadata, "spec": a_spec(), "status": {"observedGeneration": -1}} | changes


def test_a_run_is_read_with_its_defaults():
    run = reading.run(a_body())

    assert run.key == RunKey("demo", "blog")
    assert run.spec.policy.retries.infrastructure == 3
    assert run.spec_as_written == a_spec()
    assert run.status.observed_generation == -1
    assert not run.deleting


def test_a_run_with_a_field_that_this_operator_does_not_know_names_the_field():
    with pytest.raises(InvalidRun, match=r"spec\.colour"):
        reading.run(a_body(spec=a_spec(colour="red")))


def test_a_status_of_another_version_is_not_overwritten_blindly():
    with pytest.raises(InvalidRun, match="another version"):
        reading.run(a_body(status={"moonPhase": "full"}))


def test_a_job_tells_since_when_it_is_suspended():
    labels = {"finetune-operator.io/stage": "train", "finetune-operator.io/attempt": "0"}
    moment = "2026-03-01T12:00:00Z"
    condition = {"type": "Suspended", "status": "True", "lastTransitionTime": moment}

    def job(**condition: str) -> object:
        body = {"metadata": {"name": "j", "labels": labels}, "status": {"conditions": [condition]}}
        found = reading.job(body, (), None)
        return found and found.suspended_at

    assert job(**condition) == moment
    assert job(**condition | {"status": "False"}) == ""


def test_a_job_that_is_gone_before_its_pods_is_one_that_is_being_deleted():
    labels = {
        "batch.kubernetes.io/job-name": "j",
        "finetune-operator.io/stage": "train",
        "finetune-operator.io/attempt": "2",
    }
    metadata = {"name": "j-abc", "creationTimestamp": "2026-03-01T12:00:00Z", "labels": labels}
    pod = {"metadata": metadata, "status": {"phase": "Running"}}
    ended = pod | {"status": {"phase": "Failed"}}

    (body,) = reading.gone_jobs([], [pod, pod])

    job = reading.job(body, (reading.pod(pod),), None)
    assert job is not None
    assert (job.name, job.stage, job.attempt) == ("j", Stage.TRAIN, 2)
    assert job.created_at == "2026-03-01T12:00:00Z"
    assert job.deleting
    assert job.live
    assert reading.gone_jobs([{"metadata": {"name": "j"}}], [pod]) == []
    assert reading.gone_jobs([], [ended]) == []


def test_a_job_tells_stage_attempt_and_end():
    body = {
        "metadata": {
            "name": "j",
            "creationTimestamp": "2026-03-01T12:00:00Z",
            "labels": {"finetune-operator.io/stage": "train", "finetune-operator.io/attempt": "2"},
        },
        "spec": {"suspend": True},
        "status": {
            "conditions": [
                {"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy"},
                {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"},
                {"type": "Complete", "status": "False"},
            ]
        },
    }

    job = reading.job(body, (), None)

    assert job is not None
    assert (job.stage, job.attempt, job.suspended) == (Stage.TRAIN, 2, True)
    assert (job.failed_reason, job.complete, job.live) == ("DeadlineExceeded", False, False)


def test_a_job_of_a_stage_from_the_future_is_left_alone():
    labels = {"finetune-operator.io/stage": "distill", "finetune-operator.io/attempt": "0"}

    assert reading.job({"metadata": {"name": "j", "labels": labels}}, (), None) is None


def test_a_pod_tells_its_containers_and_why_it_cannot_run():
    body = {
        "metadata": {"name": "p", "deletionTimestamp": "2026-03-01T12:00:00Z"},
        "spec": {
            "nodeName": "n",
            "initContainers": [{"name": "model-fetch"}],
            "containers": [{"name": "model-server"}],
        },
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes",
                },
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "EvictionByEvictionAPI",
                    "message": "evicted",
                },
            ],
            "initContainerStatuses": [
                {
                    "name": "model-fetch",
                    "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                    "lastState": {"terminated": {"exitCode": 12, "reason": "Error", "message": "differs"}},
                }
            ],
            "containerStatuses": [{"name": "model-server", "ready": True, "state": {"running": {}}}],
        },
    }

    pod = reading.pod(body)

    fetch, server = pod.containers
    assert (pod.unschedulable, pod.disruption) == ("0/1 nodes", "EvictionByEvictionAPI: evicted")
    assert (pod.deleting, pod.ip, pod.ready) == (True, "10.0.0.1", False)
    assert (fetch.init, fetch.waiting_reason, fetch.restarts) == (True, "CrashLoopBackOff", 2)
    assert fetch.last_terminated == Termination(12, "Error", "differs")
    assert (server.init, server.ready, server.running) == (False, True, True)


def with_model(name: str, **values: str) -> dict[str, Any]:
    return {"name": name, "env": [{"name": key, "value": value} for key, value in values.items()]}


FETCH = with_model("model-fetch", MODEL_URI="s3://m", MODEL_MANIFEST_SHA256="1")
SERVER = with_model("model-server", MODEL_ID="sha256:1")
OTHER = {"MODEL_URI": "s3://other", "MODEL_MANIFEST_SHA256": "2", "MODEL_ID": "sha256:2"}


@pytest.mark.parametrize(
    ("init_containers", "containers"),
    [
        ([FETCH], [{"name": "web"}, SERVER]),
        ([with_model("embedding-fetch", **OTHER), FETCH], [SERVER]),
        ([FETCH], [with_model("web", MODEL_ID="gpt"), SERVER]),
        ([{"name": "model-fetch", "env": [*FETCH["env"], {"name": "MODEL_ID", "value": "old"}]}], [SERVER]),
        ([FETCH, SERVER | {"restartPolicy": "Always"}], [with_model("web", **OTHER)]),
    ],
)
def test_a_pod_was_made_for_the_model_that_its_two_containers_name_whatever_others_name(
    init_containers, containers
):
    spec = {"initContainers": init_containers, "containers": containers}

    pod = reading.target_pod(TARGET, {"metadata": {"name": "p"}, "spec": spec})

    assert pod.pointer == ModelPointer(uri="s3://m", manifest_sha256="1", model_id="sha256:1")


@pytest.mark.parametrize(
    ("selector", "query"),
    [
        ({}, ""),
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        (
            {"matchExpressions": [{"key": "app", "operator": "In", "values": ["chat", "site"]}]},
            "app in (chat,site)",
        ),
        (
            {
                "matchLabels": {"app": "chat"},
                "matchExpressions": [
                    {"key": "tier", "operator": "NotIn", "values": ["test"]},
                    {"key": "site", "operator": "Exists"},
                    {"key": "old", "operator": "DoesNotExist"},
                ],
            },
            "app=chat,tier notin (test),site,!old",
        ),
    ],
)
def test_every_kind_of_selector_is_asked_for(selector, query):
    assert reading.label_selector(selector) == query


def test_a_pod_tells_since_when_it_holds_its_node_and_how_it_ended():
    body = {
        "metadata": {"name": "p"},
        "spec": {"nodeName": "n"},
        "status": {
            "phase": "Failed",
            "reason": "Evicted",
            "message": "low on memory",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T12:00:00Z"}
            ],
            "containerStatuses": [
                {
                    "name": "stage",
                    "state": {"terminated": {"exitCode": 137, "finishedAt": "2026-03-01T12:05:00Z"}},
                },
                {"name": "other", "state": {"running": {"startedAt": "2026-03-01T12:01:00Z"}}},
            ],
        },
    }

    pod = reading.pod(body)

    stage, other = pod.containers
    assert (pod.scheduled_at, pod.reason, pod.message) == ("2026-03-01T12:00:00Z", "Evicted", "low on memory")
    assert stage.terminated == Termination(137, "", "", "2026-03-01T12:05:00Z")
    assert other.started_at == "2026-03-01T12:01:00Z"


def test_a_deployment_tells_its_template_and_counts():
    body = {
        "metadata": {"name": "chat", "uid": "u", "generation": 4},
        "spec": {
            "paused": True,
            "replicas": 0,
            "template": {
                "spec": {
                    "initContainers": [{"name": "sidecar", "restartPolicy": "Always"}],
                    "containers": [
                        {
                            "name": "model-server",
                            "readinessProbe": {"httpGet": {"port": 1}},
                            "env": [
                                {"name": "A", "value": "1"},
                                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            ],
                        }
                    ],
                }
            },
        },
        "status": {
            "observedGeneration": 3,
            "replicas": 2,
            "conditions": [
                {"type": "Progressing", "status": "True", "lastUpdateTime": "2026-03-01T12:00:00Z"}
            ],
        },
    }

    deployment = reading.deployment(TARGET, body)

    assert (deployment.generation, deployment.observed_generation) == (4, 3)
    assert (deployment.paused, deployment.replicas, deployment.total_replicas) == (True, 0, 2)
    assert deployment.init_containers[0].restarts_always
    assert deployment.containers[0].readiness_probe
    assert deployment.containers[0].env == (EnvEntry("A", "1"), EnvEntry("B", "", True))
    assert deployment.conditions[0].last_update_time == "2026-03-01T12:00:00Z"


def test_replicas_left_out_are_one():
    assert reading.deployment(TARGET, {"metadata": {"name": "c", "uid": "u"}, "spec": {}}).replicas == 1


def test_a_child_belongs_to_the_run_of_its_annotation_and_label():
    both = {
        "namespace": "demo",
        "labels": {"finetune-operator.io/run": "cut"},
        "annotations": {"finetune-operator.io/run": "whole"},
    }

    assert reading.owning_run({"metadata": both}) == RunKey("demo", "whole")
    assert reading.owning_run({"metadata": {"namespace": "demo"}}) is None


def a_pod_of(
    job: str, name: str, index: str | None = None, created: str = "2026-03-01T12:00:00Z"
) -> dict[str, Any]:
    labels = {"batch.kubernetes.io/job-name": job}
    if index is not None:
        labels["batch.kubernetes.io/job-completion-index"] = index
    return {"metadata": {"name": name, "creationTimestamp": created, "labels": labels}}


def names_of(job: dict[str, Any], *pods: dict[str, Any]) -> list[str]:
    return [pod["metadata"]["name"] for pod in reading.pods_of(job, pods)]


def test_the_newest_pod_of_a_job_is_last_and_others_pods_are_left_out():
    old, new = a_pod_of("train", "z", created="2026-03-01T11:00:00Z"), a_pod_of("train", "a")

    assert names_of({"metadata": {"name": "train"}}, new, a_pod_of("other", "b"), old) == ["z", "a"]


def test_of_several_nodes_the_first_one_speaks_even_when_another_is_newer():
    pods = a_pod_of("train", "n0", "0"), a_pod_of("train", "n1", "1", created="2026-03-01T12:00:09Z")

    assert names_of({"metadata": {"name": "train"}}, *pods) == ["n1", "n0"]


def test_a_pod_of_an_indexed_job_has_its_number():
    assert [reading.pod(a_pod_of("train", "n", index)).index for index in ("3", None)] == [3, 0]


def test_of_several_nodes_the_one_that_the_job_failed_by_speaks():
    words = "Container stage for pod demo/n1 failed with exit code 30 matching FailJob rule at index 1"
    job = {
        "metadata": {"name": "train"},
        "status": {"conditions": [{"type": "Failed", "status": "True", "message": words}]},
    }

    assert names_of(job, a_pod_of("train", "n0", "0"), a_pod_of("train", "n1", "1")) == ["n0", "n1"]


@pytest.mark.parametrize(
    ("owners", "by_schedule"),
    [
        ([], False),
        ([{"kind": "FineTuneSchedule", "name": "docs", "controller": True}], True),
        ([{"kind": "FineTuneSchedule", "name": "docs"}], False),
        ([{"kind": "Application", "name": "docs", "controller": True}], False),
    ],
)
def test_a_run_is_a_schedules_when_that_controls_it(owners, by_schedule):
    metadata = {"namespace": "demo", "name": "blog", "uid": UID, "ownerReferences": owners}

    assert reading.run({"metadata": metadata, "spec": a_spec()}).by_schedule is by_schedule
