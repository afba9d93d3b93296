"""Lives of a run in a small cluster in which anything may happen in any order.

The real reconciler runs: on Jobs that succeed, fail, wait, hang, vanish, are deleted by hand or are seen late; on pods
that are preempted, evicted or lose their node; with an operator that dies between acting and writing, misses events,
gets them twice and whose clock jumps; for a user who suspends, resumes, approves and cancels; with a target that
breaks. After every move all that must always hold is checked, and each life is brought to its end.

Left out: two operators at once (names and resourceVersion guard that, see test_reconcile), and a clock that jumps in
the seconds in which a read is stale.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from finetune_contract.run_status import ConditionType, FineTuneRunStatus, Phase, Reason, Usage
from finetune_contract.stage_protocol import ExitCode, Stage
from finetune_operator.actions import CreateJob
from finetune_operator.errors import ClusterUnavailable
from finetune_operator.failure_classes import FAILURES
from finetune_operator.memory import Memory
from finetune_operator.observed import JobFacts, RunKey
from finetune_operator.outlook import OVER
from finetune_operator.reconcile import Reconciler
from finetune_operator.status_news import StatusNews, status_news
from finetune_operator.usage import RUNNING
from tests.finetune_operator.samples import NEW_MODEL, NOON, OLD_MODEL, a_rollout
from tests.finetune_operator.small_cluster import GPUS, READERS_MEET, Job, SmallCluster, a_good_report

RUN = RunKey("demo", "blog")
TAKERS = ("PreemptionByScheduler: x", "EvictionByEvictionAPI: x", "DeletionByTaintManager: x")
CODES = [code for code in ExitCode if code is not ExitCode.OK] + [1, 137, 143]
RESTING = (Phase.SUSPENDED, Phase.AWAITING_APPROVAL)
PASSES_TO_REST = 12
small = st.integers(0, 59)


class Life(RuleBasedStateMachine):
    """One run, from its first look to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.cluster = SmallCluster(NOON)
        self.clock_off = timedelta()
        self.clock_jumped = False
        self.unheard_seconds = 0
        """For so long a look took as still so what an event, which was lost, would have told."""
        self.is_smoke_tested = False
        self.memory: Memory[tuple[JobFacts, ...]] = Memory()
        self.news: list[StatusNews] = []
        """Of all status writes, whichever operator made them."""
        self.reconciler = self.an_operator()
        self.made_when_done: dict[str, int] = {}
        self.ended_as: Phase | None = None
        self.succeeded: set[str] = set()
        self.next_pass: float | None = 0.0

    def an_operator(self) -> Reconciler[tuple[JobFacts, ...]]:
        """One that has just begun: it remembers nothing."""
        self.memory = Memory()
        return Reconciler(
            self.cluster,
            lambda: self.cluster.now + self.clock_off,
            memory=self.memory,
            written=lambda key, before, after: self.news.append(status_news(before, after)),
        )

    @property
    def status(self) -> FineTuneRunStatus:
        return FineTuneRunStatus.model_validate(self.cluster.status)

    @initialize(
        hours=st.sampled_from([None, None, 0.5]),
        times=st.sampled_from([1, 3, 20]),
        shortest=st.sampled_from([None, 256]),
        queue=st.sampled_from([0, 600]),
        questions=st.sampled_from([0, 5]),
    )
    def begins(
        self, hours: float | None, times: int, shortest: int | None, queue: int, questions: int
    ) -> None:
        retries = {"infrastructure": times, "preemption": times, "eviction": times, "nodeLoss": times}
        budget = {"idleGPUStopSeconds": 900} | ({"maxGPUHours": hours} if hours else {})
        ladder = {"minSequenceLength": shortest} if shortest else {}
        self.cluster = SmallCluster(
            NOON,
            policy={
                "retries": retries,
                "budget": budget,
                "outOfMemory": ladder,
                "queueDeadlineSeconds": queue,
            },
            resources={"train": {"gpu": {"count": GPUS}}},
            rollout=a_rollout(smokeTest={"questions": questions}),
        )
        self.is_smoke_tested = questions > 0
        self.reconciler = self.an_operator()
        self.looks()

    # the operator

    def looks(self, *, told: bool = True) -> None:
        """A pass; an event that told of what happened made the operator forget what it had read."""
        if told:
            self.memory.forget(RUN)
        try:
            self.next_pass = self.loop.run_until_complete(self.reconciler.reconcile(RUN))
        except ClusterUnavailable:
            self.next_pass = 1.0
        self.cluster.pass_time(1)

    @rule(number=small)
    def time_passes(self, number: int) -> None:
        self.cluster.pass_time([0, 1, 3, 11, 70, 400][number % 6])
        self.looks()

    @rule(told=st.booleans())
    def the_operator_looks(self, told: bool) -> None:
        self.looks(told=told)

    @rule(number=small)
    def a_timer_calls_and_events_were_lost(self, number: int) -> None:
        """What was read before may be long out of date: the resync has not noticed yet."""
        seconds = [1, 11, 45, 400][number % 4]
        self.cluster.pass_time(seconds)
        self.unheard_seconds += seconds
        self.looks(told=False)

    @rule()
    def an_event_comes_twice_and_the_second_look_changes_nothing(self) -> None:
        """At rest, looking again says and does the same: a replay of old events is no news."""
        if self.cluster.now < self.cluster.stale_until:
            return
        self.memory.forget(RUN)
        for _ in range(PASSES_TO_REST):
            before, acted = self.cluster.status, self.cluster.acted
            self.loop.run_until_complete(self.reconciler.reconcile(RUN))
            if (self.cluster.status, self.cluster.acted) == (before, acted):
                return
        raise AssertionError(f"it does not come to rest: {self.status}")

    @rule()
    def the_operator_dies_between_acting_and_writing(self) -> None:
        self.cluster.dies_before_writing = True
        self.looks()
        self.cluster.dies_before_writing = False
        self.reconciler = self.an_operator()

    @rule(number=small)
    def another_operator_takes_over(self, number: int) -> None:
        """It begins with lists of everything, which may be old when it comes to look at the run."""
        self.reconciler = self.an_operator()
        body = self.loop.run_until_complete(self.cluster.read_run(RUN))
        assert body is not None
        self.memory.keep(RUN, self.memory.begin(RUN), body, self.cluster.facts(), listed=True)
        self.cluster.pass_time([0, 1, 11, 70][number % 4])
        self.looks(told=False)

    @rule()
    def the_operator_sees_the_jobs_as_they_were(self) -> None:
        self.cluster.seen_before = self.cluster.facts()
        self.cluster.stale_until = self.cluster.now + timedelta(seconds=3)

    @precondition(lambda self: self.cluster.now >= self.cluster.stale_until)
    @rule(number=small)
    def the_operators_clock_jumps(self, number: int) -> None:
        self.clock_off = timedelta(seconds=[0, -3600, -30, 30, 3600][number % 5])
        self.clock_jumped = True
        self.looks()

    # Jobs and pods

    def a_live_job(self) -> Job | None:
        return next((job for job in self.cluster.live() if not job.deleting), None)

    @precondition(lambda self: self.cluster.live())
    @rule(number=small, noticed=st.booleans())
    def a_job_succeeds(self, number: int, noticed: bool) -> None:
        job = self.a_live_job()
        if job is not None and not job.suspended:
            report = a_good_report(
                job.action.stage,
                adopt=number % 8 == 7,
                passed=number % 5 != 4,
                resumed_from=self.cluster.step_saved,
            )
            self.cluster.end_job(job, 0, report)
            if noticed:
                self.looks()

    @precondition(lambda self: self.cluster.live())
    @rule(code=st.sampled_from(CODES), noticed=st.booleans())
    def a_job_fails(self, code: int, noticed: bool) -> None:
        job = self.a_live_job()
        if job is not None and not job.suspended:
            self.cluster.end_job(job, code)
            if noticed:
                self.looks()

    @precondition(lambda self: any(job.action.stage is Stage.TRAIN for job in self.cluster.live()))
    @rule()
    def gpu_memory_runs_out(self) -> None:
        job = self.a_live_job()
        if job is not None and not job.suspended and job.action.stage is Stage.TRAIN:
            self.cluster.end_job(job, int(ExitCode.CUDA_OUT_OF_MEMORY))
            self.looks()
            self.time_passes(3)

    @precondition(lambda self: self.cluster.live())
    @rule(number=small)
    def a_pod_gets_its_node_and_works(self, number: int) -> None:
        job = self.a_live_job()
        if job is not None:
            self.cluster.house(job)
            if job.running is not None:
                job.step, job.step_at = min(39, job.step + number % 7), self.cluster.now
            self.looks()

    @precondition(lambda self: any(job.running for job in self.cluster.live()))
    @rule(taker=st.sampled_from(TAKERS), leaves_sight=st.booleans(), noticed=st.booleans())
    def a_pod_is_taken_away(self, taker: str, leaves_sight: bool, noticed: bool) -> None:
        job = self.a_live_job()
        if job is not None:
            self.cluster.take_pod_away(job, taker, leaves_sight=leaves_sight)
            if noticed:
                self.looks()

    @precondition(lambda self: self.cluster.live())
    @rule(kind=st.sampled_from(["OOMKilled", "Evicted"]))
    def a_pod_takes_too_much(self, kind: str) -> None:
        job = self.a_live_job()
        if job is not None and not job.suspended:
            words = "The node was low on resource: memory." if kind == "Evicted" else ""
            self.cluster.end_job(job, 137, words, kind)
            self.looks()

    @precondition(lambda self: self.cluster.live())
    @rule(trouble=st.sampled_from(["ImagePullBackOff", "CreateContainerConfigError", ""]))
    def a_container_cannot_be_made(self, trouble: str) -> None:
        job = self.a_live_job()
        if job is not None:
            self.cluster.house(job)
            for pod in job.pods:
                pod.trouble = trouble
            self.looks()

    @rule(answers=st.booleans())
    def a_node_falls_silent_or_comes_back(self, answers: bool) -> None:
        for job in self.cluster.jobs.values():
            for pod in job.pods:
                pod.node_answers = answers
        self.looks()

    @rule(full=st.booleans())
    def the_queue_fills_or_empties(self, full: bool) -> None:
        self.cluster.queue_is_full = full
        for job in self.cluster.live():
            if not job.deleting and not job.over and job.action.stage in (Stage.TRAIN, Stage.EVALUATE):
                if full:
                    self.cluster.suspend_job(job)
                elif job.suspended:
                    self.cluster.resume_job(job)
        self.looks()

    @precondition(lambda self: self.cluster.jobs)
    @rule(number=small, at_once=st.booleans(), noticed=st.booleans())
    def somebody_deletes_a_job(self, number: int, at_once: bool, noticed: bool) -> None:
        """By hand, or its time to live is over."""
        job = list(self.cluster.jobs.values())[number % len(self.cluster.jobs)]
        if at_once:
            self.cluster.vanish(job)
        else:
            self.cluster.delete_job(job)
        if noticed:
            self.looks()

    @rule(noticed=st.booleans())
    def what_is_deleted_goes(self, noticed: bool) -> None:
        self.cluster.deleted_pods_end()
        self.cluster.deleted_jobs_go()
        if noticed:
            self.looks()

    @precondition(lambda self: self.status.phase in OVER and self.cluster.now >= self.cluster.stale_until)
    @rule(number=small)
    def a_job_lands_that_was_asked_for_before_the_end(self, number: int) -> None:
        """Its POST had timed out. The Job's own event tells of it, or else a list does: see test_watched."""
        stage = list(Stage)[number % len(Stage)]
        late = Job(CreateJob(stage, 99), f"late-{stage}-{number}", self.cluster.now)
        self.cluster.jobs[late.name] = late
        self.cluster.make_pod(late)
        self.looks()
        assert late.deleting, "it goes on although its run has ended"
        self.cluster.vanish(late)

    # people

    @rule(suspended=st.booleans())
    def the_user_suspends_or_resumes(self, suspended: bool) -> None:
        self.cluster.edit(suspend=suspended)
        self.looks()

    @rule(number=small)
    def the_user_cancels(self, number: int) -> None:
        if number % 8 == 7:
            self.cluster.edit(cancel=True)
            self.looks()

    @rule(exists=st.booleans())
    def the_target_comes_and_goes(self, exists: bool) -> None:
        if self.status.phase not in OVER:  # what others do to it afterwards is not this run's doing
            self.cluster.let_target_exist(exists)

    @rule(broken=st.booleans())
    def the_new_model_is_broken_or_not(self, broken: bool) -> None:
        self.cluster.broken_model = broken

    @rule(meet=st.sampled_from(READERS_MEET))
    def readers_are_served_well_or_not(self, meet: str) -> None:
        self.cluster.readers_meet = meet

    @precondition(lambda self: self.cluster.smoke_test() is not None)
    @rule(code=st.sampled_from([0, 0, 0, 11, 20, 30, 31, 128]))
    def a_smoke_test_ends(self, code: int) -> None:
        self.cluster.end_smoke_test(code)
        self.looks()

    @precondition(lambda self: self.cluster.smoke_jobs)
    @rule()
    def a_smoke_test_vanishes(self) -> None:
        self.cluster.smoke_jobs.clear()

    # what must always hold

    @invariant()
    def all_promises_hold(self) -> None:
        status = self.status
        self.no_two_jobs_run_at_once()
        self.what_is_done_is_not_done_again(status)
        self.an_end_is_for_good_and_has_a_typed_reason(status)
        self.a_run_that_goes_on_says_what_it_waits_for(status)
        self.every_failed_attempt_has_its_class(status)
        self.memory_goes_down_the_ladder_and_never_up(status)
        self.what_it_cost_is_not_more_than_was_held(status)
        self.what_happened_was_counted_once(status)
        self.no_model_is_put_in_untested()
        self.the_model_before_is_put_back_once_at_most()

    def no_two_jobs_run_at_once(self) -> None:
        live = [job.name for job in self.cluster.live()]
        assert len(live) <= 1, f"two live Jobs: {live}"

    def what_is_done_is_not_done_again(self, status: FineTuneRunStatus) -> None:
        succeeded = {attempt.job for attempt in status.attempts if attempt.result == "Succeeded"}
        assert self.succeeded <= succeeded, "what succeeded did not stay so"
        self.succeeded = succeeded
        done = {attempt.stage for attempt in status.attempts if attempt.result == "Succeeded"}
        for stage in Stage if status.adopted or status.phase in OVER else done:
            made = sum(action.stage is stage for action in self.cluster.created)
            assert made == self.made_when_done.setdefault(stage, made), f"{stage} was started again"

    def an_end_is_for_good_and_has_a_typed_reason(self, status: FineTuneRunStatus) -> None:
        if self.ended_as is not None:
            assert status.phase is self.ended_as, "an ended run went on"
        if status.phase not in OVER:
            return
        self.ended_as = status.phase
        assert status.completion_time
        conditions = {condition.type: condition for condition in status.conditions}
        ready, stalled = conditions[ConditionType.READY], conditions[ConditionType.STALLED]
        assert Reason(ready.reason)
        assert ready.message
        assert (ready.status == "True") == (status.phase is Phase.SUCCEEDED)
        assert (stalled.status == "True") != (status.phase is Phase.SUCCEEDED)
        assert "Running" not in {attempt.result for attempt in status.attempts}

    def a_run_that_goes_on_says_what_it_waits_for(self, status: FineTuneRunStatus) -> None:
        if not status.conditions or status.phase in OVER:
            return
        conditions = {condition.type: condition for condition in status.conditions}
        assert conditions[ConditionType.READY].message
        assert self.next_pass is not None or status.phase in RESTING, "nothing will wake the run"

    def every_failed_attempt_has_its_class(self, status: FineTuneRunStatus) -> None:
        for attempt in status.attempts:
            if attempt.result not in ("Running", "Succeeded"):
                assert Reason(attempt.result) in FAILURES
                assert attempt.failure_class is FAILURES[Reason(attempt.result)].failure_class
        assert len(status.attempts) <= 20

    def memory_goes_down_the_ladder_and_never_up(self, status: FineTuneRunStatus) -> None:
        attempts = sorted((a for a in status.attempts if a.stage is Stage.TRAIN), key=lambda a: a.number)
        sizes = [attempt.overlay.micro_batch_size if attempt.overlay else 4 for attempt in attempts]
        assert sizes == sorted(sizes, reverse=True)

    def what_it_cost_is_not_more_than_was_held(self, status: FineTuneRunStatus) -> None:
        usage = status.usage
        if usage is None:
            return
        assert usage.lost_gpu_seconds <= usage.gpu_seconds
        running = sum(
            (self.cluster.now - pod.housed_at).total_seconds() * GPUS
            for job in self.cluster.jobs.values()
            for pod in job.pods
            if pod.may_run and pod.housed_at
        )
        taken_for_running = self.unheard_seconds * GPUS  # a minute at most, where there is a resync
        if not self.clock_jumped:
            assert usage.gpu_seconds <= self.cluster.held_seconds + running + taken_for_running

    def what_happened_was_counted_once(self, status: FineTuneRunStatus) -> None:
        ended = sum(attempt.result != RUNNING for attempt in status.attempts)
        housed = sum(bool(attempt.pods) for attempt in status.attempts)
        usage = status.usage or Usage()
        assert sum(len(news.ended) for news in self.news) == ended + sum(e.count for e in status.forgotten)
        assert sum(len(news.waits) for news in self.news) >= housed
        assert sum(news.run is not None for news in self.news) == (status.phase in OVER)
        assert sum(news.gpu_seconds for news in self.news) == usage.gpu_seconds
        assert sum(news.lost_gpu_seconds for news in self.news) == usage.lost_gpu_seconds

    def no_model_is_put_in_untested(self) -> None:
        if self.is_smoke_tested and NEW_MODEL in self.cluster.patches:
            assert self.cluster.smoke_tests_passed
        assert sum(job.live for job in self.cluster.smoke_jobs.values()) <= 1

    def the_model_before_is_put_back_once_at_most(self) -> None:
        assert self.cluster.patches.count(OLD_MODEL) <= 1 + self.cluster.times_made_anew

    # the end

    def teardown(self) -> None:
        """When all goes well from now on, the run ends, and nothing is left running or half rolled out."""
        try:
            self.all_goes_well()
            if any(key.startswith("QUARANTINED.") for key in self.cluster.record):
                self.the_same_run_again_waits_until_the_quarantine_is_lifted()
        finally:
            self.loop.close()

    def the_same_run_again_waits_until_the_quarantine_is_lifted(self) -> None:
        before = self.cluster
        assert self.status.phase in (Phase.ROLLED_BACK, Phase.NOT_PROMOTED)
        self.cluster = SmallCluster(before.now, rollout=a_rollout())
        self.cluster.record = before.record
        self.reconciler = self.an_operator()
        for _ in range(20):
            self.looks()
            for job in self.cluster.live():
                self.cluster.end_job(job, 0, a_good_report(job.action.stage))
            self.cluster.pass_time(60)
        conditions = {condition.type: condition for condition in self.status.conditions}
        assert self.cluster.patches == []
        assert conditions[ConditionType.ROLLED_OUT].reason == Reason.QUARANTINED
        assert conditions[ConditionType.STALLED].status == "True"

        self.cluster.record = {
            key: value for key, value in self.cluster.record.items() if not key.startswith("QUARANTINED.")
        }
        for _ in range(8):
            self.looks()
            self.cluster.pass_time(60)
        assert self.status.phase is Phase.SUCCEEDED
        assert self.cluster.pointer == NEW_MODEL

    def all_goes_well(self) -> None:
        cluster = self.cluster
        cluster.edit(suspend=False)
        cluster.let_target_exist(True)
        cluster.queue_is_full = False
        if cluster.readers_meet == "no answer yet":
            cluster.readers_meet = "answers"
        self.clock_off = timedelta()
        for _ in range(80):
            for job in cluster.jobs.values():
                for pod in job.pods:
                    pod.node_answers, pod.trouble = True, ""
            cluster.deleted_pods_end()
            cluster.deleted_jobs_go()
            if self.status.phase in OVER:
                break
            for job in cluster.live():
                if job.suspended:
                    cluster.resume_job(job)
                cluster.end_job(job, 0, a_good_report(job.action.stage, resumed_from=cluster.step_saved))
            cluster.end_smoke_test(0)
            cluster.pass_time(301)
            self.looks()
            self.all_promises_hold()
        status = self.status
        assert status.phase in OVER, status
        assert cluster.live() == []
        assert cluster.smoke_test() is None
        if status.phase is Phase.SUCCEEDED:
            assert cluster.pointer == NEW_MODEL
        elif cluster.patches:
            assert cluster.pointer == OLD_MODEL


FEW = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
MANY = settings(FEW, max_examples=10_000, stateful_step_count=50, print_blob=True)

TestAFewLives = Life.TestCase
TestAFewLives.settings = FEW


@pytest.mark.slow
class TestTenThousandLives(Life.TestCase):  # type: ignore[misc]
    """The same, at length."""

    settings = MANY
