"""From what a Job and its pods show to one word."""

from __future__ import annotations

import pytest

from finetune_contract.run_status import Reason
from finetune_contract.stage_protocol import ExitCode, Stage
from finetune_operator.failures import Budget, Outcome, backoff_seconds, budget_of, judge
from finetune_operator.observed import ContainerFacts
from tests.finetune_operator.samples import NOON, a_failed_job, a_job, a_pod, a_run, ended, later

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
            a_job(Stage.TRAIN, failed_reason="BackoffLimitExceeded"),
            Reason.INFRASTRUCTURE,
            "left no exit code",
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


def test_every_reason_that_may_be_tried_again_has_its_budget():
    assert budget_of(Reason.STORE_UNAVAILABLE) is Budget.INFRASTRUCTURE
    assert budget_of(Reason.PREEMPTED) is Budget.PREEMPTION
    assert budget_of(Reason.SUSPENDED) is Budget.FREE
    assert budget_of(Reason.DATA_REJECTED) is Budget.NONE
    assert budget_of("a word from the future") is Budget.NONE


def test_pauses_grow_to_a_limit():
    assert [backoff_seconds(Budget.INFRASTRUCTURE, n) for n in (1, 2, 3, 20)] == [10, 20, 40, 300]
    assert backoff_seconds(Budget.PREEMPTION, 9) == 5
