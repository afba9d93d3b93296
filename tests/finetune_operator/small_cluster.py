"""A cluster that fits a simulation: Jobs and pods that behave, a target, a queue, and reads that may lie. Not a test.

It does what Kubernetes does and no more: a Job replaces a pod that was taken away, and not one that failed; a Job that
is suspended loses its pods; one that is deleted stays in sight until its pods are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from finetune_contract.run_status import FineTuneRunStatus, ModelPointer
from finetune_contract.stage_protocol import (
    DatasetFacts,
    EvaluationFacts,
    ExitCode,
    ModelFacts,
    ProgressLine,
    ReaderQuestion,
    Stage,
    StageReport,
    TrainingFacts,
)
from finetune_operator.actions import (
    Action,
    CreateJob,
    CreateSmokeTest,
    DeleteJob,
    PatchTarget,
    WriteRecord,
)
from finetune_operator.child_names import job_name
from finetune_operator.errors import ClusterUnavailable, StaleObject
from finetune_operator.events import RunEvent
from finetune_operator.observed import (
    ContainerFacts,
    JobFacts,
    Observed,
    PodFacts,
    ReaderAnswer,
    Run,
    RunKey,
    ServedModel,
    ServiceFacts,
    SmokeJob,
    Tally,
    Termination,
)
from finetune_operator.rollout.record import read_history, read_quarantine
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

POD_SPEC = {
    "initContainers": [{"name": "model-fetch"}],
    "containers": [{"name": "web"}, {"name": "model-server"}],
}
"""The target's."""
QUESTION = ReaderQuestion(question="What does the wheel do?", must_contain=["turns"])
READERS_MEET = (
    "nobody asks",
    "no service",
    "answers",
    "silence",
    "no answer yet",
    "errors",
    "nonsense",
    "another model",
)
GPUS = 2
STEPS = 40


@dataclass
class Pod:
    """A pod of a stage."""

    name: str
    made_at: datetime
    housed_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    disruption: str = ""
    deleting: bool = False
    trouble: str = ""
    """Why its container cannot be made."""
    node_answers: bool = True

    @property
    def may_run(self) -> bool:
        return self.ended_at is None

    def facts(self) -> PodFacts:
        container = ContainerFacts("stage", waiting_reason=self.trouble or "ContainerCreating")
        if self.ended_at is not None:
            end = Termination(self.exit_code, self.reason or "Error", self.message, to_rfc3339(self.ended_at))
            container = ContainerFacts("stage", terminated=end)
        elif self.housed_at is not None and not self.trouble:
            container = ContainerFacts(
                "stage", running=True, ready=True, started_at=to_rfc3339(self.housed_at)
            )
        phase = "Pending" if self.housed_at is None else "Running"
        if self.ended_at is not None:
            phase = "Failed" if self.exit_code else "Succeeded"
        return PodFacts(
            self.name,
            created_at=to_rfc3339(self.made_at),
            node="node-1" if self.housed_at else "",
            scheduled_at=to_rfc3339(self.housed_at) if self.housed_at else "",
            phase=phase,
            reason="Evicted" if self.reason == "Evicted" else "",
            message=self.message if self.reason == "Evicted" else "",
            ready=container.running and self.node_answers,
            deleting=self.deleting,
            unschedulable="" if self.housed_at else "0/1 nodes are available",
            disruption=self.disruption,
            containers=() if self.housed_at is None else (container,),
        )


@dataclass
class Job:
    """A Job of the run."""

    action: CreateJob
    name: str
    made_at: datetime
    pods: list[Pod] = field(default_factory=list)
    complete: bool = False
    failed: str = ""
    deleting: bool = False
    suspended: bool = False
    step: int = 0
    step_at: datetime = NOON

    @property
    def over(self) -> bool:
        return self.complete or bool(self.failed)

    @property
    def live(self) -> bool:
        """It may run a pod, now or later."""
        return (not self.over and not self.deleting) or any(pod.may_run for pod in self.pods)

    @property
    def running(self) -> Pod | None:
        return next((pod for pod in self.pods if pod.may_run and pod.housed_at is not None), None)

    def facts(self) -> JobFacts:
        log: tuple[str, ...] | None = None
        if self.pods and self.pods[-1].housed_at is not None and self.pods[-1].node_answers:
            line = ProgressLine(
                stage=self.action.stage,
                step=self.step,
                total_steps=STEPS,
                loss=1.0,
                time=to_rfc3339(self.step_at),
            )
            log = ("a word", line.to_line()) if self.step else ("a word",)
        return JobFacts(
            self.name,
            self.action.stage,
            self.action.attempt,
            created_at=to_rfc3339(self.made_at),
            deleting=self.deleting,
            suspended=self.suspended,
            complete=self.complete,
            failed_reason=self.failed,
            pods=tuple(pod.facts() for pod in self.pods),
            log_tail=log,
        )


class SmallCluster:
    """What the reconciler needs of a cluster, and what may happen in one."""

    def __init__(self, now: datetime, **spec: Any) -> None:
        self.now = now
        self.spec: dict[str, Any] = a_spec(**spec)
        self.generation = 1
        self.version = 1
        self.status: dict[str, Any] = {}
        self.jobs: dict[str, Job] = {}
        self.smoke_jobs: dict[str, SmokeJob] = {}
        self.smoke_tests_passed = 0
        self.seen_before: tuple[JobFacts, ...] = ()
        self.stale_until = now
        self.pointer: ModelPointer = OLD_MODEL
        self.target_exists = True
        self.times_made_anew = 0
        self.broken_model = False
        self.readers_meet = "nobody asks"
        self.record: dict[str, str] = {}
        self.dies_before_writing = False
        self.queue_is_full = False
        self.created: list[CreateJob] = []
        self.patches: list[ModelPointer] = []
        self.acted = 0
        """Actions that changed something."""
        self.pods_made = 0
        self.held_seconds = 0.0
        """Of pods of training and evaluation that are gone from sight or not."""
        self.step_saved = 0

    # what the reconciler asks

    async def read_run(self, key: RunKey) -> dict[str, Any] | None:
        metadata = {
            "namespace": key.namespace,
            "name": key.name,
            "uid": UID,
            "generation": self.generation,
            "resourceVersion": str(self.version),
        }
        return {"metadata": metadata, "spec": self.spec, "status": self.status}

    async def read_children(self, run: Run) -> tuple[JobFacts, ...]:
        return self.seen_before if self.now < self.stale_until else self.facts()

    async def observe(self, run: Run, children: tuple[JobFacts, ...], *, logs: bool = True) -> Observed:
        tails = {job.name: job.log_tail for job in self.facts()} if logs else {}
        jobs = tuple(replace(job, log_tail=tails.get(job.name)) for job in children)
        smoke = tuple(self.smoke_jobs.values())
        body = {"data": self.record}
        kept = {
            "history": read_history(body),
            "quarantine": read_quarantine(body),
            "recorded": dict(self.record),
        }
        if not self.target_exists:
            return Observed(jobs=jobs, smoke_jobs=smoke, **kept)
        target = replace(
            a_deployment(self.pointer), uid=f"chat-uid-{self.times_made_anew}", pod_spec=POD_SPEC
        )
        pod = PodFacts("chat-1", created_at=to_rfc3339(self.now), ready=True, pointer=self.pointer)
        if self.broken_model and self.pointer == NEW_MODEL:
            target = replace(target, available_replicas=0)
            bad = ContainerFacts(
                "model-fetch", init=True, terminated=Termination(12, "Error", "bad checksum")
            )
            pod = replace(pod, ready=False, containers=(bad,))
        served = (ServedModel("chat-1", self.pointer.model_id),) if pod.ready else ()
        return Observed(
            jobs=jobs,
            smoke_jobs=smoke,
            target=target,
            target_pods=(pod,),
            served=served,
            service=self.what_readers_meet(),
            **kept,
        )

    def what_readers_meet(self) -> ServiceFacts | None:
        """Through the target's Service."""
        answered = Tally(answered=20, named=((self.pointer.model_id, 20),))
        right = ReaderAnswer(QUESTION, "It turns.")
        return {
            "nobody asks": None,
            "no service": ServiceFacts(problem="no Service selects the pods"),
            "answers": ServiceFacts("site", watched=answered, answers=(right,)),
            "silence": ServiceFacts("site", watched=Tally(unanswered=20, problem="timeout")),
            "no answer yet": ServiceFacts("site", watched=answered),
            "errors": ServiceFacts("site", watched=replace(answered, failed=20, problem="status 502")),
            "nonsense": ServiceFacts("site", watched=answered, answers=(replace(right, answer="<unused>"),)),
            "another model": ServiceFacts("site", watched=replace(answered, named=(("sha256:x", 20),))),
        }[self.readers_meet]

    async def apply(self, run: Run, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case CreateJob(stage, attempt):
                    name = job_name(run.name, run.uid, stage, attempt)
                    self.acted += name not in self.jobs
                    self.make_job(action, name)
                case CreateSmokeTest(name) if name not in self.smoke_jobs:
                    self.acted += 1
                    self.smoke_jobs[name] = SmokeJob(name, created_at=to_rfc3339(self.now))
                case DeleteJob(name) if name in self.smoke_jobs:
                    self.acted += 1
                    del self.smoke_jobs[name]
                case DeleteJob(name):
                    if name in self.jobs and not self.jobs[name].deleting:
                        self.acted += 1
                        self.delete_job(self.jobs[name])
                case PatchTarget(payload=payload):
                    self.acted += 1
                    self.pointer = OLD_MODEL if OLD_MODEL.uri in str(payload) else NEW_MODEL
                    self.patches.append(self.pointer)
                case WriteRecord(manifest):
                    data: dict[str, str] = manifest["data"]  # type: ignore[assignment]
                    self.acted += data != self.record
                    self.record = data
        if self.dies_before_writing:
            self.dies_before_writing = False
            raise ClusterUnavailable("killed")

    async def write_status(self, run: Run, status: FineTuneRunStatus) -> str:
        if run.resource_version != str(self.version):
            raise StaleObject("changed")
        self.status = status.to_wire()
        self.version += 1
        return str(self.version)

    async def write_status_of(self, key: RunKey, resource_version: str, status: dict[str, object]) -> str:
        raise AssertionError("the run is always readable here")

    async def publish(self, run: Run, events: tuple[RunEvent, ...], now: str) -> None:
        assert events

    # what is there

    def facts(self) -> tuple[JobFacts, ...]:
        return tuple(job.facts() for job in self.jobs.values())

    def live(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.live]

    def smoke_test(self) -> SmokeJob | None:
        """The one that has not ended."""
        return next((job for job in self.smoke_jobs.values() if job.live), None)

    # what happens by itself

    def end_smoke_test(self, code: int) -> None:
        job = self.smoke_test()
        if job is None:
            return
        self.smoke_tests_passed += code == 0
        asked = ContainerFacts("smoke-test", terminated=Termination(code, message="told"))
        pod = PodFacts(job.name, phase="Failed" if code else "Succeeded", containers=(asked,))
        ended = {"failed_reason": "BackoffLimitExceeded", "failed_at": to_rfc3339(self.now)}
        self.smoke_jobs[job.name] = replace(job, pods=(pod,), **(ended if code else {"complete": True}))

    def make_job(self, action: CreateJob, name: str) -> None:
        if name in self.jobs:
            return
        self.created.append(action)
        uses_gpu = action.stage in (Stage.TRAIN, Stage.EVALUATE)
        job = Job(action, name, self.now, suspended=uses_gpu and self.queue_is_full, step_at=self.now)
        job.step = self.step_saved if action.stage is Stage.TRAIN else 0
        self.jobs[name] = job
        self.make_pod(job)

    def make_pod(self, job: Job) -> None:
        if job.over or job.deleting or job.suspended or any(pod.may_run for pod in job.pods):
            return
        self.pods_made += 1
        job.pods.append(Pod(f"{job.name}-{self.pods_made}", self.now))
        if job.action.stage is Stage.TRAIN:
            job.step = self.step_saved

    def house(self, job: Job) -> None:
        """The scheduler finds a node."""
        for pod in job.pods:
            if pod.housed_at is None and pod.may_run:
                pod.housed_at = self.now

    def end_pod(self, job: Job, pod: Pod, code: int, message: str = "", reason: str = "") -> None:
        pod.ended_at, pod.exit_code, pod.message, pod.reason = self.now, code, message, reason
        if code == ExitCode.PREEMPTED and job.action.stage is Stage.TRAIN:
            self.step_saved = max(self.step_saved, job.step)
        if pod.housed_at is not None and job.action.stage in (Stage.TRAIN, Stage.EVALUATE):
            gpus = GPUS if job.action.stage is Stage.TRAIN else 1
            self.held_seconds += int((self.now - pod.housed_at).total_seconds()) * gpus

    def end_job(self, job: Job, code: int, message: str = "", reason: str = "") -> None:
        """Its pod ends by itself, and the Job with it."""
        for pod in job.pods:
            if pod.may_run:
                if pod.housed_at is None:
                    pod.housed_at = self.now
                self.end_pod(job, pod, code, message, reason)
        job.complete, job.failed = code == 0, "" if code == 0 else "PodFailurePolicy"

    def take_pod_away(self, job: Job, disruption: str, *, leaves_sight: bool) -> None:
        """Kubernetes needs the place; the Job makes a new pod."""
        pod = job.running
        if pod is None or job.over:
            return
        pod.disruption, pod.deleting = disruption, True
        self.end_pod(job, pod, int(ExitCode.PREEMPTED))
        if leaves_sight:
            job.pods.remove(pod)
        self.make_pod(job)

    def suspend_job(self, job: Job) -> None:
        """The queue takes its place back: the pods go, and no failure is counted."""
        job.suspended = True
        for pod in [pod for pod in job.pods if pod.may_run]:
            self.end_pod(job, pod, int(ExitCode.PREEMPTED))
            job.pods.remove(pod)

    def resume_job(self, job: Job) -> None:
        job.suspended = False
        self.make_pod(job)

    def delete_job(self, job: Job) -> None:
        """Foreground: the pods are told to stop, and the Job stays until they have."""
        job.deleting = True
        for pod in job.pods:
            pod.deleting = True

    def deleted_pods_end(self) -> None:
        for job in self.jobs.values():
            for pod in job.pods:
                if pod.deleting and pod.may_run and pod.node_answers:
                    self.end_pod(job, pod, int(ExitCode.PREEMPTED))

    def deleted_jobs_go(self) -> None:
        self.jobs = {
            name: job
            for name, job in self.jobs.items()
            if not (job.deleting and not any(pod.may_run for pod in job.pods))
        }

    def vanish(self, job: Job) -> None:
        """Gone at once, as by a forced deletion; what ran of it runs no more."""
        for pod in job.pods:
            if pod.may_run:
                self.end_pod(job, pod, 137)
        del self.jobs[job.name]

    def let_target_exist(self, exists: bool) -> None:
        """A Deployment that was deleted comes back as another one, with the model that its manifest names."""
        if exists and not self.target_exists:
            self.times_made_anew += 1
            self.pointer = OLD_MODEL
        self.target_exists = exists

    def edit(self, **changes: Any) -> None:
        self.spec = self.spec | changes
        self.generation += 1
        self.version += 1

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def a_good_report(stage: Stage, *, adopt: bool = False, passed: bool = True, resumed_from: int = 0) -> str:
    """What a stage leaves in its termination message."""
    model = ModelFacts(uri=URI, manifest_sha256=MANIFEST, size_bytes=1)
    verdict = EvaluationFacts(passed=passed, gate="recall is too low", reader_questions=[QUESTION])
    dataset = DatasetFacts(
        digest=DIGEST, run_key=KEY, documents=9, training_examples=9, evaluation_examples=9, adopted=adopt
    )
    facts: dict[Stage, dict[str, Any]] = {
        Stage.DATASET: {"dataset": dataset} | ({"model": model, "evaluation": verdict} if adopt else {}),
        Stage.TRAIN: {"training": TrainingFacts(steps=STEPS, final_loss=0.4, resumed_from_step=resumed_from)},
        Stage.PACKAGE: {"model": model},
        Stage.EVALUATE: {"evaluation": verdict},
    }
    return StageReport(stage=stage, **facts[stage]).to_message()
