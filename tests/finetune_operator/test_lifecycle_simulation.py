"""Runs against a small invented cluster in which anything may happen in any order.

The real reconciler runs on a fake cluster: Jobs that succeed, fail, vanish or are slow to be seen, an operator that
dies between acting and writing, a user who suspends, resumes, approves and cancels, a target that breaks. Left out:
two operators at once (names and resourceVersion guard that, see test_reconcile) and time to live of Jobs.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_contract.run_status import ConditionType, FineTuneRunStatus, ModelPointer, Phase, Reason
from finetune_contract.stage_protocol import (
    DatasetFacts,
    EvaluationFacts,
    ExitCode,
    ModelFacts,
    Stage,
    StageReport,
)
from finetune_operator.actions import Action, CreateJob, DeleteJob, PatchTarget
from finetune_operator.child_names import job_name
from finetune_operator.errors import ClusterUnavailable, StaleObject
from finetune_operator.events import RunEvent
from finetune_operator.observed import (
    ContainerFacts,
    JobFacts,
    Observed,
    PodFacts,
    Run,
    RunKey,
    ServedModel,
    Termination,
)
from finetune_operator.outlook import OVER
from finetune_operator.reconcile import Reconciler
from finetune_operator.timestamps import to_rfc3339
from tests.finetune_operator.samples import (
    DIGEST,
    KEY,
    MANIFEST,
    NEW_MODEL,
    NOON,
    OLD_MODEL,
    UID,
    URI,
    a_deployment,
    a_spec,
)

RUN = RunKey("demo", "blog")
CODES = [
    *(4 * [ExitCode.PREEMPTED, ExitCode.SOURCE_UNAVAILABLE, 137]),  # the ones that are tried again
    *(code for code in ExitCode if code is not ExitCode.OK),
    1,
]


class SmallCluster:
    """Just enough of a cluster for the reconciler."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.spec: dict[str, Any] = a_spec()
        self.generation = 1
        self.version = 1
        self.status: dict[str, Any] = {}
        self.jobs: dict[str, JobFacts] = {}
        self.seen_before: tuple[JobFacts, ...] = ()
        self.stale_until = now
        self.pointer: ModelPointer = OLD_MODEL
        self.target_exists = True
        self.times_made_anew = 0
        self.broken_model = False
        self.dies_before_writing = False
        self.created: list[CreateJob] = []
        self.patches: list[ModelPointer] = []

    def let_target_exist(self, exists: bool) -> None:
        """A Deployment that was deleted comes back as another one, with the model that its manifest names."""
        if exists and not self.target_exists:
            self.times_made_anew += 1
            self.pointer = OLD_MODEL
        self.target_exists = exists

    async def read_run(self, key: RunKey) -> dict[str, Any] | None:
        metadata = {
            "namespace": key.namespace,
            "name": key.name,
            "uid": UID,
            "generation": self.generation,
            "resourceVersion": str(self.version),
        }
        return {"metadata": metadata, "spec": self.spec, "status": self.status}

    async def observe(self, run: Run) -> Observed:
        jobs = self.seen_before if self.now < self.stale_until else tuple(self.jobs.values())
        if not self.target_exists:
            return Observed(jobs=jobs)
        target = replace(a_deployment(self.pointer), uid=f"chat-uid-{self.times_made_anew}")
        pod = PodFacts("chat-1", created_at=to_rfc3339(self.now), ready=True, pointer=self.pointer)
        if self.broken_model and self.pointer == NEW_MODEL:
            target = replace(target, available_replicas=0)
            bad = ContainerFacts(
                "model-fetch", init=True, terminated=Termination(12, "Error", "bad checksum")
            )
            pod = replace(pod, ready=False, containers=(bad,))
        served = (ServedModel("chat-1", self.pointer.model_id),) if pod.ready else ()
        return Observed(jobs=jobs, target=target, target_pods=(pod,), served=served)

    async def apply(self, run: Run, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case CreateJob(stage, attempt):
                    name = job_name(run.name, run.uid, stage, attempt)
                    if name not in self.jobs:
                        self.created.append(action)
                        self.jobs[name] = JobFacts(name, stage, attempt, created_at=to_rfc3339(self.now))
                case DeleteJob(name):
                    if name in self.jobs:
                        self.jobs[name] = replace(self.jobs[name], deleting=True)
                case PatchTarget(_, payload):
                    self.pointer = OLD_MODEL if OLD_MODEL.uri in str(payload) else NEW_MODEL
                    self.patches.append(self.pointer)
        if self.dies_before_writing:
            self.dies_before_writing = False
            raise ClusterUnavailable("killed")

    async def write_status(self, run: Run, status: FineTuneRunStatus) -> None:
        if run.resource_version != str(self.version):
            raise StaleObject("changed")
        self.status = status.to_wire()
        self.version += 1

    async def write_status_of(self, key: RunKey, resource_version: str, status: dict[str, object]) -> None:
        raise AssertionError("the run is always readable here")

    async def publish(self, run: Run, events: tuple[RunEvent, ...], now: str) -> None:
        assert events


class Story:
    """One run in the small cluster, move by move; after each, all that must always hold is checked."""

    def __init__(self) -> None:
        self.cluster = SmallCluster(NOON)
        self.loop = asyncio.new_event_loop()
        self.reconciler = Reconciler(self.cluster, lambda: self.cluster.now)
        self.created_at_adoption: int | None = None
        self.ended_as: Phase | None = None
        self.succeeded: set[str] = set()
        self.next_pass: float | None = 0.0

    @property
    def status(self) -> FineTuneRunStatus:
        return FineTuneRunStatus.model_validate(self.cluster.status)

    def live(self) -> list[JobFacts]:
        return [job for job in self.cluster.jobs.values() if job.live]

    def the_operator_looks(self) -> None:
        try:
            self.next_pass = self.loop.run_until_complete(self.reconciler.reconcile(RUN))
        except ClusterUnavailable:
            self.next_pass = 1.0

    # moves; each takes a number, and does nothing where there is nothing to do

    def time_passes(self, number: int) -> None:
        self.cluster.now += timedelta(seconds=[0, 1, 3, 11, 70, 400][number % 6])
        self.the_operator_looks()

    def the_operator_dies_between_acting_and_writing(self, number: int) -> None:
        self.cluster.dies_before_writing = True
        self.the_operator_looks()
        self.cluster.dies_before_writing = False

    def the_operator_sees_the_jobs_as_they_were(self, number: int) -> None:
        self.cluster.seen_before = tuple(self.cluster.jobs.values())
        self.cluster.stale_until = self.cluster.now + timedelta(seconds=3)

    def a_job_succeeds(self, number: int) -> None:
        for job in self.live()[:1]:
            if not job.deleting:
                self.ends(job, 0, a_good_report(job.stage, adopt=number % 4 == 3, passed=number % 5 != 4))

    def a_job_fails(self, number: int) -> None:
        for job in self.live()[:1]:
            self.ends(job, CODES[number % len(CODES)], "", pod_stays=number % 2 == 0)

    def a_job_vanishes(self, number: int) -> None:
        names = sorted(self.cluster.jobs)
        if names:
            del self.cluster.jobs[names[number % len(names)]]

    def deleted_jobs_go(self, number: int) -> None:
        self.cluster.jobs = {name: job for name, job in self.cluster.jobs.items() if not job.deleting}

    def the_user_suspends_or_resumes(self, number: int) -> None:
        self.edit(suspend=number % 3 == 0)

    def the_user_cancels(self, number: int) -> None:
        if number % 8 == 7:
            self.edit(cancel=True)

    def the_target_comes_and_goes(self, number: int) -> None:
        if self.status.phase not in OVER:  # what others do to it afterwards is not this run's doing
            self.cluster.let_target_exist(number % 2 == 0)

    def the_new_model_is_broken_or_not(self, number: int) -> None:
        self.cluster.broken_model = number % 2 == 1

    def edit(self, **changes: Any) -> None:
        self.cluster.spec = self.cluster.spec | changes
        self.cluster.generation += 1
        self.cluster.version += 1

    def ends(self, job: JobFacts, code: int, message: str, *, pod_stays: bool = True) -> None:
        ended = ContainerFacts(
            "stage", terminated=Termination(code, "Completed" if code == 0 else "Error", message)
        )
        pods = (PodFacts("pod", created_at=job.created_at, node="node-1", containers=(ended,)),)
        failed = "" if code == 0 else "PodFailurePolicy"
        words = f"Container stage for pod demo/pod failed with exit code {code}" if code else ""
        self.cluster.jobs[job.name] = replace(
            job,
            complete=code == 0,
            failed_reason=failed,
            failed_message=words,
            pods=pods if pod_stays else (),
        )

    # what must always hold

    def check(self) -> None:
        status = self.status
        stages = [job.stage for job in self.live()]
        assert len(stages) == len(set(stages)), f"two live Jobs for one stage: {stages}"
        if status.adopted and self.created_at_adoption is None:
            self.created_at_adoption = len(self.cluster.created)
        if self.created_at_adoption is not None:
            assert len(self.cluster.created) == self.created_at_adoption, "a Job was made after adoption"
        succeeded = {attempt.job for attempt in status.attempts if attempt.result == "Succeeded"}
        assert self.succeeded <= succeeded, "what succeeded did not stay so"
        self.succeeded = succeeded
        assert len(status.attempts) <= 20
        if self.ended_as is not None:
            assert status.phase is self.ended_as, "an ended run went on"
        if status.phase in OVER:
            self.ended_as = status.phase
            self.check_end(status)
        elif status.conditions and self.next_pass is None:
            assert status.phase in (Phase.SUSPENDED, Phase.AWAITING_APPROVAL), "nothing will wake the run"

    def check_end(self, status: FineTuneRunStatus) -> None:
        assert status.completion_time
        conditions = {condition.type: condition for condition in status.conditions}
        ready, stalled = conditions[ConditionType.READY], conditions[ConditionType.STALLED]
        assert Reason(ready.reason)
        assert (ready.status == "True") == (status.phase is Phase.SUCCEEDED)
        assert (stalled.status == "True") != (status.phase is Phase.SUCCEEDED)

    def settle(self) -> None:
        """When all goes well from now on, the run ends, and nothing is left running or half rolled out."""
        self.edit(suspend=False)
        self.cluster.let_target_exist(True)
        for _ in range(60):
            if self.status.phase in OVER:
                break
            self.deleted_jobs_go(0)
            for job in self.live():
                self.ends(job, 0, a_good_report(job.stage))
            self.cluster.now += timedelta(seconds=301)
            self.the_operator_looks()
            self.check()
        self.deleted_jobs_go(0)
        assert self.status.phase in OVER, self.status
        assert self.live() == []
        if self.status.phase is Phase.SUCCEEDED:
            assert self.cluster.pointer == NEW_MODEL
        elif self.cluster.patches:
            assert self.cluster.pointer == OLD_MODEL


def a_good_report(stage: Stage, *, adopt: bool = False, passed: bool = True) -> str:
    model = ModelFacts(uri=URI, manifest_sha256=MANIFEST, size_bytes=1)
    verdict = EvaluationFacts(passed=passed, gate="recall is too low")
    dataset = DatasetFacts(
        digest=DIGEST, run_key=KEY, documents=9, training_examples=9, evaluation_examples=9, adopted=adopt
    )
    facts: dict[Stage, dict[str, Any]] = {
        Stage.DATASET: {"dataset": dataset} | ({"model": model, "evaluation": verdict} if adopt else {}),
        Stage.TRAIN: {},
        Stage.PACKAGE: {"model": model},
        Stage.EVALUATE: {"evaluation": verdict},
    }
    return StageReport(stage=stage, **facts[stage]).to_message()


MOVES = [
    *(6 * ["a_job_succeeds"]),
    *(2 * ["a_job_fails"]),
    "a_job_vanishes",
    *(2 * ["deleted_jobs_go"]),
    "the_user_suspends_or_resumes",
    "the_user_cancels",
    "the_target_comes_and_goes",
    "the_new_model_is_broken_or_not",
    *(2 * ["the_operator_dies_between_acting_and_writing"]),
    "the_operator_sees_the_jobs_as_they_were",
    *(4 * ["time_passes"]),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(MOVES), st.integers(0, 119), st.booleans()), min_size=20, max_size=60
    )
)
def test_whatever_happens_a_run_keeps_its_promises(moves):
    story = Story()
    try:
        story.the_operator_looks()
        for name, number, noticed in moves:
            getattr(story, name)(number)
            story.cluster.now += timedelta(seconds=1)
            if noticed:
                story.the_operator_looks()
            story.check()
        story.settle()
    finally:
        story.loop.close()
