"""From what a Job and its pods show to one word."""

from __future__ import annotations

import pytest

from finetune_contract.run_status import Reason
from finetune_contract.stage_protocol import ExitCode, Stage
from finetune_operator.failures import Outcome, judge
from finetune_operator.observed import ContainerFacts
from tests.finetune_operator.samples import (
    NOON,
    a_failed_job,
    a_job,
    a_pod,
    a_run,
    an_attempt,
    ended,
    later,
)

SPEC = a_run().spec


@pytest.mark.parametrize(
    ("job", "reason", "words"),
    [
        (
            a_job(Stage.TRAIN, pod=a_pod(ended(14, reason="OOMKilled")), failed_reason="PodFailurePolicy"),
            Reason.HOST_OUT_OF_MEMORY,
            "raise spec.resources.train.memory",
        ),
        (
            a_job(Stage.TRAIN, failed_reason="DeadlineExceeded"),
            Reason.DEADLINE_EXCEEDED,
            "raise spec.policy.stageDeadlineSeconds",
        ),
        (
            a_job(
                Stage.TRAIN,
                pod=a_pod(ended(70), disruption="PreemptionByScheduler: for a bigger pod"),
                failed_reason="BackoffLimitExceeded",
            ),
            Reason.PREEMPTED,
            "for a bigger pod",
        ),
        (
            a_failed_job(Stage.TRAIN, ExitCode.PREEMPTED, message="checkpoint saved"),
            Reason.PREEMPTED,
            "checkpoint",
        ),
        (
            a_job(Stage.TRAIN, pod=a_pod(ended(137)), failed_reason="BackoffLimitExceeded"),
            Reason.INFRASTRUCTURE,
            "stopped from outside (exit code 137)",
        ),
        (
            a_job(Stage.TRAIN, pod=a_pod(ended(1, "Traceback")), failed_reason="BackoffLimitExceeded"),
            Reason.INTERNAL_ERROR,
            "exit code 1: Traceback",
        ),
        (
            a_job(
                Stage.TRAIN,
                failed_reason="BackoffLimitExceeded",
                failed_message="Job has reached the specified backoff limit",
            ),
            Reason.INFRASTRUCTURE,
            "the pod is gone and left no exit code: somebody deleted it while it ran",
        ),
        (
            a_job(
                Stage.TRAIN,
                failed_reason="PodFailurePolicy",
                failed_message="Container stage for pod demo/p failed with exit code 33 matching FailJob rule",
            ),
            Reason.DIVERGED,
            "exit code 33",
        ),
    ],
)
def test_a_failed_job_has_one_reason(job, reason, words):
    judgement = judge(job, None, SPEC, NOON)

    assert judgement.outcome is Outcome.FAILED
    assert judgement.reason is reason
    assert words in judgement.message


@pytest.mark.parametrize(
    ("job", "outcome", "words"),
    [
        (a_job(Stage.TRAIN), Outcome.WAITING, "no pod yet"),
        (a_job(Stage.TRAIN, suspended=True), Outcome.WAITING, "queue has not admitted it"),
        (a_job(Stage.TRAIN, pod=a_pod(None)), Outcome.WAITING, ""),
        (a_job(Stage.TRAIN, pod=a_pod()), Outcome.RUNNING, ""),
        (
            a_job(Stage.TRAIN, pod=a_pod(ended(32), disruption="Eviction: drained")),
            Outcome.WAITING,
            "a new one follows: Eviction: drained",
        ),
        (
            a_job(
                Stage.TRAIN,
                pod=a_pod(
                    ContainerFacts(
                        "stage",
                        waiting_reason="CreateContainerConfigError",
                        waiting_message='configmap "x" not found',
                    )
                ),
            ),
            Outcome.WAITING,
            'configmap "x" not found',
        ),
    ],
)
def test_a_job_under_way_is_not_a_failure(job, outcome, words):
    judgement = judge(job, None, SPEC, NOON)

    assert judgement.outcome is outcome
    assert words in judgement.message
    assert judgement.exit_code is None


KUBELET = {"failed_reason": "BackoffLimitExceeded"}


@pytest.mark.parametrize(
    ("pod", "reason", "words"),
    [
        ({"disruption": "EvictionByEvictionAPI: drained"}, Reason.EVICTED, "drained"),
        ({"disruption": "TerminationByKubelet: low on memory"}, Reason.EVICTED, "low on memory"),
        ({"disruption": "DeletionByTaintManager: NoExecute"}, Reason.NODE_LOST, "NoExecute"),
        ({"disruption": "DeletionByPodGC: node gone"}, Reason.NODE_LOST, "node gone"),
        ({"disruption": "SomethingNew: why"}, Reason.PREEMPTED, "why"),
        (
            {"reason": "Evicted", "message": "The node was low on resource: memory."},
            Reason.EVICTED,
            "low on resource",
        ),
        (
            {"reason": "Evicted", "message": 'Usage of EmptyDir volume "work" exceeds the limit "20Gi". '},
            Reason.SCRATCH_FULL,
            "raise spec.resources.train.scratch",
        ),
        (
            {"reason": "Evicted", "message": 'Usage of EmptyDir volume "shm" exceeds the limit "1Gi". '},
            Reason.SCRATCH_FULL,
            "raise spec.resources.train.sharedMemory",
        ),
        (
            {"reason": "Evicted", "message": "Pod ephemeral local storage usage exceeds the total limit"},
            Reason.SCRATCH_FULL,
            "raise spec.resources.train.scratch",
        ),
        (
            {"reason": "DeadlineExceeded", "message": "Pod was active on the node longer"},
            Reason.DEADLINE_EXCEEDED,
            "raise spec.policy.stageDeadlineSeconds",
        ),
        ({"reason": "Preempting", "message": "for a critical pod"}, Reason.PREEMPTED, "critical"),
        (
            {"reason": "OutOfcpu", "message": "Node didn't have enough resource"},
            Reason.INFRASTRUCTURE,
            "OutOfcpu",
        ),
    ],
)
def test_a_pod_that_kubernetes_ended_says_by_whom(pod, reason, words):
    judgement = judge(a_job(Stage.TRAIN, pod=a_pod(None, **pod), **KUBELET), None, SPEC, NOON)

    assert judgement.outcome is Outcome.FAILED
    assert judgement.reason is reason
    assert words in judgement.message


def test_host_memory_names_the_limit_to_raise_even_when_the_stage_did_not():
    job = a_failed_job(Stage.PACKAGE, ExitCode.HOST_OUT_OF_MEMORY, message="out of memory: MemoryError")

    judgement = judge(job, None, SPEC, NOON)

    assert judgement.reason is Reason.HOST_OUT_OF_MEMORY
    assert judgement.message == "out of memory: MemoryError; raise spec.resources.other.memory (4Gi)"


def test_of_several_pods_the_one_that_failed_by_itself_tells_why():
    pods = (
        a_pod(ended(32, "told to stop"), name="a"),
        a_pod(ended(30, "out of memory"), name="b"),
        a_pod(ended(143), name="c"),
    )
    job = a_job(Stage.TRAIN, pods=pods, failed_reason="PodFailurePolicy")

    assert judge(job, None, SPEC, NOON).reason is Reason.CUDA_OUT_OF_MEMORY


def test_a_group_that_ended_because_one_pod_was_taken_away_says_so():
    pods = (
        a_pod(ended(32, "told to stop"), name="a"),
        a_pod(ended(143), name="b", disruption="DeletionByTaintManager: node gone"),
    )
    job = a_job(Stage.TRAIN, pods=pods, failed_reason="PodFailurePolicy")

    assert judge(job, None, SPEC, NOON).reason is Reason.NODE_LOST


def test_a_queue_that_takes_its_place_back_costs_nothing():
    job = a_job(Stage.TRAIN, pod=a_pod(ended(32)), suspended=True)

    judgement = judge(job, an_attempt(Stage.TRAIN), SPEC, NOON)

    assert (judgement.outcome, judgement.exit_code) == (Outcome.WAITING, None)
    assert "took its place back" in judgement.message


def test_waiting_for_a_node_ends_at_the_queue_deadline_in_the_schedulers_words():
    pod = a_pod(None, node="", unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    job, known = a_job(Stage.TRAIN, pod=pod), an_attempt(Stage.TRAIN)
    hour = a_run(policy={"queueDeadlineSeconds": 3600}).spec
    patient = a_run(policy={"queueDeadlineSeconds": 0}).spec

    late = judge(job, known, hour, later(3601))

    assert judge(job, known, hour, later(3600)).outcome is Outcome.WAITING
    assert judge(job, known, patient, later(10**7)).outcome is Outcome.WAITING
    assert (late.outcome, late.reason, late.stop) == (Outcome.FAILED, Reason.UNSCHEDULABLE, True)
    assert "Insufficient nvidia.com/gpu" in late.message
    assert late.message.startswith("spec.policy.queueDeadlineSeconds: no node for 1h00m")


def test_a_node_that_does_not_answer_is_no_reason_to_stop_anything():
    silent = judge(a_job(Stage.TRAIN, pod=a_pod(phase="Running", ready=False)), None, SPEC, NOON)
    leaving = a_pod(deleting=True, phase="Running", disruption="DeletionByTaintManager: unreachable")
    stuck = judge(a_job(Stage.TRAIN, pod=leaving), None, SPEC, NOON)

    assert (silent.outcome, silent.reason) == (Outcome.RUNNING, Reason.NODE_LOST)
    assert (stuck.outcome, stuck.reason) == (Outcome.WAITING, Reason.NODE_LOST)
    assert "its Node object is deleted" in stuck.message


def test_a_pod_that_holds_a_gpu_does_not_wait_for_a_secret_for_ever():
    gpu = a_run(resources={"train": {"gpu": {"count": 1}}}).spec
    container = ContainerFacts(
        "stage", waiting_reason="CreateContainerConfigError", waiting_message='secret "s3" not found'
    )
    job = a_job(Stage.TRAIN, pod=a_pod(container))

    assert judge(job, None, gpu, later(30)).outcome is Outcome.WAITING
    assert judge(job, None, gpu, later(61)).outcome is Outcome.FAILED
    assert judge(job, None, SPEC, later(61)).outcome is Outcome.WAITING


def test_a_job_that_gets_no_pod_says_where_the_cause_is_found():
    assert "kubectl describe job" in judge(a_job(Stage.TRAIN), None, SPEC, later(16)).message
