"""How a patched Deployment is judged: kubectl's rules in order, and the failures that pods show."""

from __future__ import annotations

import pytest

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import Reason
from finetune_operator.observed import ConditionFacts, ContainerFacts, Termination
from finetune_operator.rollout.progress import Complete, Failed, Waiting, pods_with, watch
from finetune_operator.rollout.target_shape import TargetShape
from tests.finetune_operator.samples import (
    NEW_MODEL,
    OLD_MODEL,
    a_deployment,
    a_target_pod,
    at,
    later,
)

TARGET = DeploymentTarget(name="chat")


def fetch(code: int, message: str = "", **changes: object) -> ContainerFacts:
    return ContainerFacts("model-fetch", init=True, terminated=Termination(code, "Error", message), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"observed_generation": 2}, "has not seen the change"),
        ({"replicas": 2}, "1 of 2 new pods made"),
        ({"total_replicas": 2}, "1 old pods are still there"),
        ({"available_replicas": 0}, "0 of 1 new pods available"),
        ({"paused": True}, "paused"),
    ],
)
def test_a_rollout_on_its_way_says_what_it_waits_for(changes, words):
    found = watch(TARGET, a_deployment(**changes), (), at(0), later(5))

    assert isinstance(found, Waiting)
    assert words in found.message


def test_all_new_and_available_is_complete():
    assert isinstance(watch(TARGET, a_deployment(), (), at(0), later(5)), Complete)


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        (fetch(10), Reason.MODEL_NOT_FOUND),
        (fetch(11), Reason.MODEL_ACCESS_DENIED),
        (fetch(12), Reason.MODEL_INTEGRITY),
        (fetch(13), Reason.MODEL_INTEGRITY),
        (fetch(14), Reason.CACHE_VOLUME_FULL),
        (fetch(15), Reason.FORBIDDEN_FILE),
        (fetch(99), Reason.CONTAINER_CRASHED),
        (fetch(20, restarts=3), Reason.STORE_UNAVAILABLE),
        (
            ContainerFacts(
                "model-server", last_terminated=Termination(1, "Error", "no such file"), running=True
            ),
            Reason.CONTAINER_CRASHED,
        ),
        (ContainerFacts("model-server", terminated=Termination(137, "OOMKilled")), Reason.MODEL_TOO_LARGE),
        (ContainerFacts("web", waiting_reason="ErrImageNeverPull"), Reason.IMAGE_PULL_FAILED),
        (ContainerFacts("web", terminated=Termination(1), restarts=3), Reason.CONTAINER_CRASHED),
        (
            ContainerFacts(
                "web", waiting_reason="CrashLoopBackOff", last_terminated=Termination(0), restarts=3
            ),
            Reason.CONTAINER_CRASHED,
        ),
        (
            ContainerFacts("model-server", waiting_reason="CrashLoopBackOff", last_terminated=Termination(2)),
            Reason.CONTAINER_CRASHED,
        ),
    ],
)
def test_a_pod_that_cannot_come_up_fails_the_rollout_at_once(container, reason):
    found = watch(TARGET, a_deployment(), (a_target_pod(container),), at(0), later(3))

    assert isinstance(found, Failed)
    assert found.reason == reason
    assert container.name in found.message


@pytest.mark.parametrize(
    "container",
    [
        fetch(0),
        fetch(20),
        ContainerFacts("web", terminated=Termination(1), restarts=1),
        ContainerFacts("web", waiting_reason="ErrImagePull"),
        ContainerFacts(
            "web", waiting_reason="CreateContainerConfigError", waiting_message='secret "x" not found'
        ),
        ContainerFacts("model-server", ready=True, running=True, last_terminated=Termination(1)),
    ],
)
def test_a_pod_that_may_still_come_up_is_waited_for(container):
    found = watch(TARGET, a_deployment(available_replicas=0), (a_target_pod(container),), at(0), later(3))

    assert isinstance(found, Waiting)


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (a_target_pod(unschedulable="0/1 nodes: Insufficient memory"), Reason.UNSCHEDULABLE),
        (a_target_pod(ContainerFacts("web", waiting_reason="ImagePullBackOff")), Reason.IMAGE_PULL_FAILED),
        (
            a_target_pod(
                ContainerFacts(
                    "web", waiting_reason="CreateContainerConfigError", waiting_message='secret "x" not found'
                )
            ),
            Reason.SECRET_NOT_FOUND,
        ),
    ],
)
def test_patience_with_a_pod_ends(pod, reason):
    found = watch(TARGET, a_deployment(), (pod,), at(0), later(121))

    assert isinstance(found, Failed)
    assert found.reason == reason


def test_the_deployments_own_deadline_counts_only_after_the_patch():
    def deadline(seconds: float) -> ConditionFacts:
        return ConditionFacts(
            "Progressing", "False", "ProgressDeadlineExceeded", "late", last_update_time=at(seconds)
        )

    old = watch(TARGET, a_deployment(conditions=(deadline(-10),)), (), at(0), later(5))
    new = watch(TARGET, a_deployment(conditions=(deadline(31),)), (), at(0), later(32))

    assert isinstance(old, Complete)
    assert isinstance(new, Failed)
    assert new.reason is Reason.PROGRESS_DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (a_target_pod(fetch(20, "no answer", restarts=2)), Reason.STORE_UNAVAILABLE),
        (a_target_pod(unschedulable="0/1 nodes", created_at=at(20)), Reason.UNSCHEDULABLE),
        (a_target_pod(ContainerFacts("web", running=True)), Reason.PROGRESS_DEADLINE_EXCEEDED),
    ],
)
def test_a_deadline_is_told_with_the_cause_that_the_pods_show(pod, reason):
    late = ConditionFacts("Progressing", "False", "ProgressDeadlineExceeded", "late", at(100))

    found = watch(TARGET, a_deployment(conditions=(late,)), (pod,), at(0), later(101))

    assert isinstance(found, Failed)
    assert found.reason is reason
    assert found.message.startswith("late")


@pytest.mark.parametrize("said", [0, 1])
def test_pods_that_cannot_even_be_made_fail_the_rollout_after_a_minute(said):
    """A quota says so in the second of the patch."""
    quota = ConditionFacts("ReplicaFailure", "True", "FailedCreate", "exceeded quota", at(said), at(said))

    early = watch(TARGET, a_deployment(conditions=(quota,), updated_replicas=0), (), at(0), later(30))
    late = watch(TARGET, a_deployment(conditions=(quota,), updated_replicas=0), (), at(0), later(62))

    assert isinstance(early, Waiting)
    assert "exceeded quota" in early.message
    assert isinstance(late, Failed)
    assert late.reason is Reason.FAILED_CREATE
    assert "exceeded quota" in late.message


def test_pods_that_an_earlier_rollout_could_not_make_do_not_count():
    old = ConditionFacts("ReplicaFailure", "True", "FailedCreate", "exceeded quota", at(-1), at(-1))

    found = watch(TARGET, a_deployment(conditions=(old,), updated_replicas=0), (), at(0), later(62))

    assert isinstance(found, Waiting)
    assert "exceeded quota" not in found.message


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (a_target_pod(unschedulable="0/1 nodes: Insufficient memory"), "Insufficient memory"),
        (
            a_target_pod(
                ContainerFacts("web", waiting_reason="ErrImagePull", waiting_message="404 not found")
            ),
            "404 not found",
        ),
        (a_target_pod(fetch(20, "the store answered 503")), "the store answered 503 (try 1 of 4)"),
        (a_target_pod(ContainerFacts("web", terminated=Termination(1, "", "no database"))), "no database"),
    ],
)
def test_the_cause_is_told_at_the_first_sign_while_it_may_still_pass(pod, words):
    found = watch(TARGET, a_deployment(available_replicas=0), (pod,), at(0), later(3))

    assert isinstance(found, Waiting)
    assert words in found.message


def test_a_pod_without_a_node_names_the_room_it_needs_and_the_strategy_that_needs_less():
    shape = TargetShape(max_surge=1, max_unavailable=0, pod_memory_bytes=700 * 2**20)
    pod = a_target_pod(unschedulable="0/1 nodes: Insufficient memory")

    found = watch(TARGET, a_deployment(shape=shape), (pod,), at(0), later(121))
    without_surge = watch(
        TARGET,
        a_deployment(shape=TargetShape(max_surge=0, max_unavailable=1)),
        (pod,),
        at(0),
        later(121),
    )

    assert isinstance(found, Failed)
    assert "needs 700 MiB while the old pods run" in found.message
    assert "maxSurge: 0" in found.message
    assert isinstance(without_surge, Failed)
    assert "maxSurge" not in without_surge.message


def test_a_container_that_ran_out_of_memory_names_its_limit():
    shape = TargetShape(memory_limits=(("model-server", 512 * 2**20),))
    killed = ContainerFacts("model-server", last_terminated=Termination(14, "OOMKilled"))

    found = watch(TARGET, a_deployment(shape=shape), (a_target_pod(killed),), at(0), later(4))

    assert isinstance(found, Failed)
    assert found.reason is Reason.MODEL_TOO_LARGE
    assert "limit of 512 MiB" in found.message


@pytest.mark.parametrize("said", [0, 1])
def test_a_replica_set_that_cannot_be_made_is_a_failure_and_a_paused_deployment_is_not(said):
    """It may be refused in the second of the patch."""
    refused = ConditionFacts("Progressing", "False", "ReplicaSetCreateError", "too many labels", at(said))
    paused = ConditionFacts("Progressing", "Unknown", "DeploymentPaused", "paused", at(1))

    failed = watch(TARGET, a_deployment(conditions=(refused,)), (), at(0), later(2))
    waiting = watch(TARGET, a_deployment(conditions=(paused,), paused=True), (), at(0), later(2))

    assert isinstance(failed, Failed)
    assert failed.reason is Reason.FAILED_CREATE
    assert isinstance(waiting, Waiting)


def test_only_pods_of_the_wanted_model_are_judged():
    pods = (
        a_target_pod(pointer=OLD_MODEL),
        a_target_pod(pointer=NEW_MODEL, name="new"),
        a_target_pod(pointer=NEW_MODEL, deleting=True),
    )

    assert [pod.name for pod in pods_with(pods, NEW_MODEL)] == ["new"]
