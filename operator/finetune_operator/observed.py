"""What was seen in the cluster at one moment, as frozen facts. Must not know how it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.run_status import FineTuneRunStatus, ModelPointer
from finetune_contract.stage_protocol import ReaderQuestion, Stage
from finetune_operator.api_group import SMOKE_TEST
from finetune_operator.rollout.target_shape import ANY_SHAPE, TargetShape

NO_MODEL = ModelPointer()
"""A template that pins no model."""
UNENDED_PHASES = frozenset({"Pending", "Running", "Unknown"})


@dataclass(frozen=True)
class RunKey:
    """Where a run is found."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Run:
    """A FineTuneRun as read."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    spec: FineTuneRunSpec
    spec_as_written: dict[str, object] = field(hash=False)
    """The spec as the user wrote it and the API server defaulted it: what the stages get."""
    status: FineTuneRunStatus
    deleting: bool = False
    by_schedule: bool = False
    """A schedule made it, and waits for its end."""

    @property
    def key(self) -> RunKey:
        return RunKey(self.namespace, self.name)


@dataclass(frozen=True)
class Termination:
    """How a container ended."""

    exit_code: int
    reason: str = ""
    message: str = ""
    finished_at: str = ""


@dataclass(frozen=True)
class ContainerFacts:
    """The state of one container of a pod."""

    name: str
    init: bool = False
    ready: bool = False
    running: bool = False
    started_at: str = ""
    """When it began, while it is running."""
    waiting_reason: str = ""
    waiting_message: str = ""
    terminated: Termination | None = None
    """How it ended, when it is not running now."""
    last_terminated: Termination | None = None
    """How its previous life ended."""
    restarts: int = 0


@dataclass(frozen=True)
class PodFacts:
    """A pod."""

    name: str
    created_at: str = ""
    node: str = ""
    scheduled_at: str = ""
    """When it got its node."""
    ip: str = ""
    phase: str = ""
    reason: str = ""
    """Why the kubelet ended it, such as Evicted or DeadlineExceeded; empty when it did not."""
    message: str = ""
    """The same in words."""
    ready: bool = False
    deleting: bool = False
    unschedulable: str = ""
    """The scheduler's words, when it found no node."""
    disruption: str = ""
    """Why Kubernetes took the pod away (DisruptionTarget), in its words."""
    index: int = 0
    """Its number in an Indexed Job."""
    containers: tuple[ContainerFacts, ...] = ()
    pointer: ModelPointer = NO_MODEL
    """The model that a pod of the target was made for; empty for pods of stages."""

    @property
    def may_run(self) -> bool:
        """Its containers may hold what they asked for; a pod that ended holds nothing, even while it is listed."""
        return self.phase in UNENDED_PHASES

    def silent(self, name: str) -> bool:
        """Its node does not answer: the container was ready when the kubelet last spoke, and the pod is not."""
        container = self.container(name)
        return bool(container and container.running and container.ready and not self.ready and self.phase)

    def container(self, name: str) -> ContainerFacts | None:
        """The container of that name."""
        return next((container for container in self.containers if container.name == name), None)


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What every Job shows, with its pods.

    The pod that tells most is last: of several nodes the first one's, or the one that the Job failed by; else
    the newest.
    """

    created_at: str = ""
    deleting: bool = False
    suspended: bool = False
    suspended_at: str = ""
    """Since when it has been suspended; empty while it is not."""
    complete: bool = False
    failed_reason: str = ""
    """Reason of the Failed condition; empty while it has not failed."""
    failed_message: str = ""
    failed_at: str = ""
    pods: tuple[PodFacts, ...] = ()

    @property
    def over(self) -> bool:
        """It makes no more pods."""
        return self.complete or bool(self.failed_reason)

    @property
    def live(self) -> bool:
        """A pod of it may run, now or later. A Job can be called failed while its pods still shut down."""
        return not self.over or any(pod.may_run for pod in self.pods)

    @property
    def must_be_stopped(self) -> bool:
        """Where nobody wants its work any more."""
        return self.live and not self.deleting


@dataclass(frozen=True)
class JobFacts(JobState):
    """The Job of one attempt of a stage, with the end of its last pod's log."""

    name: str
    stage: Stage
    attempt: int
    queue_words: str = ""
    """What its queue says while it holds the Job back."""
    log_tail: tuple[str, ...] | None = None
    """None when the log was not asked for or could not be read."""


@dataclass(frozen=True)
class SmokeJob(JobState):
    """A Job that tries a model beside its target."""

    name: str

    @property
    def ended(self) -> Termination | None:
        """How the container that asks ended. After it the pod only stops its model server, and no other follows."""
        asking = self.pods[-1].container(SMOKE_TEST) if self.pods else None
        return asking.terminated if asking else None

    @property
    def must_be_stopped(self) -> bool:
        """One that has told its result ends by itself, and is kept for whoever reads its log."""
        return super().must_be_stopped and self.ended is None


@dataclass(frozen=True)
class ConditionFacts:
    """A condition of a Deployment."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_update_time: str = ""
    last_transition_time: str = ""


@dataclass(frozen=True)
class EnvEntry:
    """An environment variable in a pod template."""

    name: str
    value: str = ""
    from_elsewhere: bool = False
    """It is set by `valueFrom`."""


@dataclass(frozen=True)
class TemplateContainer:
    """A container in a pod template."""

    name: str
    env: tuple[EnvEntry, ...] = ()
    readiness_probe: bool = False
    restarts_always: bool = False
    """An init container with restartPolicy Always: a native sidecar."""

    def value(self, name: str) -> str:
        """The variable's value; empty when it is not set here."""
        return next((entry.value for entry in self.env if entry.name == name), "")


@dataclass(frozen=True)
class DeploymentFacts:
    """The rollout's target."""

    name: str
    uid: str
    generation: int = 1
    observed_generation: int = 1
    paused: bool = False
    replicas: int = 1
    """Wanted."""
    updated_replicas: int = 0
    total_replicas: int = 0
    available_replicas: int = 0
    conditions: tuple[ConditionFacts, ...] = ()
    init_containers: tuple[TemplateContainer, ...] = ()
    containers: tuple[TemplateContainer, ...] = ()
    shape: TargetShape = ANY_SHAPE
    pod_spec: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    """The template's, as it is; to make another pod like it."""


@dataclass(frozen=True)
class Refusal:
    """Why the API server would not take a patch."""

    message: str
    owner: str = ""
    """The field manager that owns the field; empty when it is no conflict."""
    field: str = ""


@dataclass(frozen=True)
class ServedModel:
    """What a pod said when it was asked which model it serves."""

    pod: str
    model: str = ""
    """Empty when it gave no answer."""
    problem: str = ""


@dataclass(frozen=True)
class Tally:
    """Requests to a Service of the target, one a second, in one part of a rollout."""

    answered: int = 0
    failed: int = 0
    """Without a good answer, after there had been one."""
    unanswered: int = 0
    """Before the first good answer: the Service had nobody to ask, or cannot be reached from here."""
    problem: str = ""
    """Of the last one that failed."""
    named: tuple[tuple[str, int], ...] = ()
    """Models that the answers named, and how often."""


@dataclass(frozen=True)
class ReaderAnswer:
    """What came back when a question of the evaluation was asked through the Service."""

    question: ReaderQuestion
    answer: str = ""
    problem: str = ""
    """Why there is no answer; empty when there is."""
    tells: bool = True
    """False: it says nothing about the model, such as a site that is full or takes no questions."""


@dataclass(frozen=True)
class ServiceFacts:
    """What readers meet: the target's Service, asked since the target was changed."""

    name: str = ""
    """Empty when none is asked."""
    problem: str = ""
    """Why none is asked."""
    switching: Tally = Tally()
    """Until every new pod was available."""
    watched: Tally = Tally()
    """Since then."""
    answers: tuple[ReaderAnswer, ...] = ()
    """In the order of the questions; fewer while they are still asked."""


@dataclass(frozen=True)
class RecordedModel:
    """A model that was live in a target, or published for it."""

    model: ModelPointer
    run: str = ""
    """Name of the run that made it; the run may be gone."""
    metrics: tuple[tuple[str, float], ...] = ()
    """What its own evaluation gave, by metric; empty when nobody wrote it down."""


@dataclass(frozen=True)
class Quarantined:
    """A model that was taken back from a target, or proved wrong beside it."""

    model_id: str
    run: str = ""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Observed:
    """Everything that one decision is made from."""

    jobs: tuple[JobFacts, ...] = ()
    smoke_jobs: tuple[SmokeJob, ...] = ()
    target: DeploymentFacts | None = None
    deployments: tuple[str, ...] = ()
    """Names in the namespace; read only when a target is missing."""
    missing_target: str = ""
    """One of the Deployments that follow and is not there; looked for only before the first Job."""
    target_pods: tuple[PodFacts, ...] = ()
    refusal: Refusal | None = None
    """Outcome of the rehearsed patch (server-side dry run); None when it would be taken or was not asked."""
    rolling_run: str = ""
    """Another run that is rolling out to the same target and has not ended; read only before patching."""
    newer_run: str = ""
    """A run that was made later and has rolled out to the same target; read only before patching."""
    served: tuple[ServedModel, ...] = ()
    """Answers of the target's ready pods; read only while verifying."""
    service: ServiceFacts | None = None
    """Answers of the target's Service; asked only while the target changes and while it is watched."""
    history: tuple[RecordedModel, ...] = ()
    """Models on the target's record, newest first; read only near a rollout, and while it lasts."""
    quarantine: tuple[Quarantined, ...] = ()
    """Models that the record keeps from the target; read with the history."""
    recorded: Mapping[str, str] = field(default_factory=dict, hash=False)
    """All of the record, to write it with an entry more."""
