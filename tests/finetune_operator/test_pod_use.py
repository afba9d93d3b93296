"""How long pods held their nodes, from the times that the scheduler and the kubelet wrote."""

from __future__ import annotations

from dataclasses import replace

from finetune_contract.run_status import MOST_ENDED_PODS, Attempt
from finetune_contract.stage_protocol import MOST_PODS, Stage
from finetune_operator.observed import ContainerFacts, JobFacts, PodFacts, Termination
from finetune_operator.pod_use import held_seconds, waiting_seconds, with_pods
from tests.finetune_operator.samples import a_job, an_attempt, at, later


def a_holder(name: str, since: float, until: float | None = None, disruption: str = "") -> PodFacts:
    """A pod that got its node at `since` and ended at `until`."""
    ended = None if until is None else Termination(32, "Error", "", at(until))
    container = ContainerFacts("stage", running=ended is None, started_at=at(since), terminated=ended)
    phase = "Running" if ended is None else "Failed"
    return PodFacts(
        name,
        created_at=at(since),
        node="node-1",
        scheduled_at=at(since),
        phase=phase,
        disruption=disruption,
        containers=(container,),
    )


def with_holders(*pods: PodFacts, now: float, attempt: Attempt | None = None, **changes: object) -> Attempt:
    job: JobFacts = replace(a_job(Stage.TRAIN), pods=pods, **changes)
    return with_pods(attempt or an_attempt(Stage.TRAIN), job, later(now))


def test_a_running_pod_is_counted_in_whole_minutes_and_an_ended_one_to_the_second():
    running = with_holders(a_holder("a", 30), now=30 + 119)
    ended = with_holders(a_holder("a", 30, 130), now=500, attempt=running)

    assert held_seconds(running) == 60
    assert running.queue_seconds == 30
    assert held_seconds(ended) == 100


def test_pods_that_are_gone_still_count():
    first = with_holders(a_holder("a", 0, 70, "PreemptionByScheduler: for another"), now=80)
    second = with_holders(a_holder("b", 100, 190), now=200, attempt=first)

    assert held_seconds(second) == 70 + 90
    assert [use.taken_by for use in second.pods] == ["Preempted", ""]


def test_a_pod_that_is_gone_when_its_queue_took_its_place_back_counts_until_then_once():
    """Kueue suspends the Job, and nobody sees the end of a pod that is gone a moment later."""
    running = with_holders(a_holder("a", 30), now=75)
    taken = with_holders(now=90, attempt=running, suspended=True, suspended_at=at(80))
    later_on = with_holders(a_holder("b", 200), now=230, attempt=taken)
    again = with_holders(now=300, attempt=later_on, suspended=True, suspended_at=at(250))

    assert [(use.seconds, use.taken_by) for use in running.pods] == [(0, "")]
    assert [(use.seconds, use.taken_by) for use in taken.pods] == [(50, "Suspended")]
    assert [(use.seconds, use.taken_by) for use in again.pods] == [(50, "Suspended"), (50, "Suspended")]


def test_what_the_kubelet_said_of_a_pod_that_its_queue_stopped_stands():
    ended = with_holders(a_holder("a", 30, 95), now=96, suspended=True, suspended_at=at(80))
    gone = with_holders(now=99, attempt=ended, suspended=True, suspended_at=at(80))

    assert held_seconds(ended) == held_seconds(gone) == 65


def test_several_pods_at_once_all_count():
    both = with_holders(a_holder("a", 0, 60), a_holder("b", 5, 65), now=90)

    assert held_seconds(both) == 120


def test_looking_twice_counts_once():
    once = with_holders(a_holder("a", 0, 60), a_holder("b", 70), now=200)
    twice = with_holders(a_holder("a", 0, 60), a_holder("b", 70), now=200, attempt=once)

    assert twice == once


def test_a_clock_that_goes_back_takes_nothing_away_and_the_kubelets_word_is_the_last():
    ahead = with_holders(a_holder("a", 0), now=3600)
    back = with_holders(a_holder("a", 0), now=10, attempt=ahead)
    ended = with_holders(a_holder("a", 0, 15), now=20, attempt=back)

    assert [held_seconds(attempt) for attempt in (ahead, back, ended)] == [3600, 3600, 15]


def test_many_pods_are_told_of_together_and_not_one_is_counted_twice():
    pods = tuple(a_holder(f"p{n}", 10 * n, 10 * n + 7, "EvictionByEvictionAPI: drained") for n in range(30))
    attempt = an_attempt(Stage.TRAIN)
    for number in range(1, 31):
        attempt = with_holders(*pods[:number], now=400, attempt=attempt)

    assert len(attempt.pods) <= MOST_ENDED_PODS
    assert held_seconds(attempt) == 30 * 7
    assert sum(use.pods for use in attempt.pods) == 30
    assert {use.taken_by for use in attempt.pods} == {"Evicted"}


TAKERS = ("", "PreemptionByScheduler: x", "EvictionByEvictionAPI: x", "DeletionByTaintManager: x")


def test_pods_that_were_taken_for_every_reason_are_still_no_more_than_a_status_may_tell_of():
    attempt = an_attempt(Stage.TRAIN)
    failed: tuple[PodFacts, ...] = ()
    for number in range(60):
        begin = 10 * number
        pod = a_holder(f"p{number}", begin, begin + 7, TAKERS[number % 4])
        attempt = with_holders(*failed, pod, now=begin + 8, attempt=attempt)
        if not pod.disruption:
            failed = (*failed, pod)
        if number % 5 == 0:
            queued, taken = a_holder(f"q{number}", begin + 8), at(begin + 9)
            attempt = with_holders(*failed, queued, now=begin + 8, attempt=attempt)
            attempt = with_holders(
                *failed, now=begin + 9, attempt=attempt, suspended=True, suspended_at=taken
            )
        Attempt.model_validate(attempt.model_dump())

    assert len(attempt.pods) == MOST_ENDED_PODS
    assert sum(use.pods for use in attempt.pods) == 60 + 12
    assert held_seconds(attempt) == 60 * 7 + 12
    assert {use.taken_by for use in attempt.pods} == {"", "Preempted", "Evicted", "NodeLost", "Suspended"}


def test_every_pod_of_the_largest_training_is_told_of_while_it_runs_beside_those_that_were_replaced():
    ended = tuple(a_holder(f"ended-{n}", n, n + 5, TAKERS[n % 4]) for n in range(30))
    running = tuple(a_holder(f"runs-{n:02}", 40) for n in range(MOST_PODS))
    attempt = with_holders(*ended, *running, now=400)
    Attempt.model_validate(attempt.model_dump())
    over = with_holders(*ended, *(a_holder(pod.name, 40, 500) for pod in running), now=501, attempt=attempt)

    assert [use.name for use in attempt.pods if use.name.startswith("runs-")] == [pod.name for pod in running]
    assert held_seconds(attempt) == 30 * 5 + MOST_PODS * 360
    assert held_seconds(over) == 30 * 5 + MOST_PODS * 460
    assert sum(use.pods for use in over.pods) == 30 + MOST_PODS


def test_a_pod_without_a_node_holds_nothing():
    waiting = replace(a_holder("a", 0), node="", scheduled_at="", unschedulable="no node")

    assert with_holders(waiting, now=500).pods == []


def test_waiting_counts_from_the_making_of_the_job_or_from_the_end_of_the_last_pod():
    job = a_job(Stage.TRAIN)
    taken = with_holders(a_holder("a", 50, 80, "PreemptionByScheduler: for another"), now=90)

    assert waiting_seconds(an_attempt(Stage.TRAIN), job, later(40)) == 40
    assert waiting_seconds(taken, job, later(100)) == 20
    assert waiting_seconds(taken, replace(job, pods=(a_holder("b", 90),)), later(100)) == 0


def test_a_group_waits_while_one_of_its_pods_has_no_node():
    pods = (a_holder("a", 5), PodFacts("b", phase="Pending", unschedulable="no node"))
    job = replace(a_job(Stage.TRAIN), pods=pods)

    assert waiting_seconds(with_pods(an_attempt(Stage.TRAIN), job, later(70)), job, later(70)) == 70
