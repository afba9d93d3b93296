"""FineTuneRun's status: every word that a user may see. Must not know how it is found out."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_contract.model import ContractModel
from finetune_contract.stage_protocol import (
    MOST_PODS,
    MOST_READER_QUESTIONS,
    ReaderQuestion,
    Stage,
    TrainingOverlay,
)

Text = Annotated[str, Field(max_length=1024)]


class Phase(StrEnum):
    """Where a run is, derived from its conditions for the printer column."""

    PENDING = "Pending"
    BUILDING_DATASET = "BuildingDataset"
    TRAINING = "Training"
    PACKAGING = "Packaging"
    EVALUATING = "Evaluating"
    AWAITING_APPROVAL = "AwaitingApproval"
    ROLLING_OUT = "RollingOut"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    UNCHANGED = "Unchanged"
    NOT_PROMOTED = "NotPromoted"
    ROLLED_BACK = "RolledBack"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


ENDED_PHASES = frozenset(
    {
        Phase.SUCCEEDED,
        Phase.UNCHANGED,
        Phase.NOT_PROMOTED,
        Phase.ROLLED_BACK,
        Phase.FAILED,
        Phase.CANCELLED,
    }
)
"""Nothing is started for such a run again."""


class ConditionType(StrEnum):
    """Kinds of condition: the three of kstatus, then one a stage."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DATASET_READY = "DatasetReady"
    TRAINED = "Trained"
    PACKAGED = "Packaged"
    EVALUATED = "Evaluated"
    ROLLED_OUT = "RolledOut"


class ConditionStatus(StrEnum):
    """A condition's three values."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Why: the one vocabulary of conditions, attempts and events."""

    # on the way
    WAITING = "Waiting"
    RUNNING = "Running"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    AWAITING_APPROVAL = "AwaitingApproval"
    # done
    COMPLETED = "Completed"
    ADOPTED = "Adopted"
    GATES_PASSED = "GatesPassed"
    ROLLOUT_NOT_ASKED = "RolloutNotAsked"
    TRAINING_NOT_ASKED = "TrainingNotAsked"
    UNCHANGED = "Unchanged"
    # ended for good
    CANCELLED = "Cancelled"
    GATES_FAILED = "GatesFailed"
    BELOW_LIVE_MODEL = "BelowLiveModel"
    INVALID_SPEC = "InvalidSpec"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a word, not a secret
    TARGET_NOT_FOUND = "TargetNotFound"
    CONTAINER_NOT_FOUND = "ContainerNotFound"
    FIELD_CONFLICT = "FieldConflict"
    DATA_REJECTED = "DataRejected"
    SOURCE_REJECTED = "SourceRejected"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    STORE_REJECTED = "StoreRejected"
    STORE_UNAVAILABLE = "StoreUnavailable"
    KNOWLEDGE_BASE_REJECTED = "KnowledgeBaseRejected"
    KNOWLEDGE_BASE_UNAVAILABLE = "KnowledgeBaseUnavailable"
    BASE_MODEL_REJECTED = "BaseModelRejected"
    CUDA_OUT_OF_MEMORY = "CudaOutOfMemory"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    DIVERGED = "Diverged"
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    SCRATCH_FULL = "ScratchFull"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    BUDGET_EXCEEDED = "BudgetExceeded"
    GPU_IDLE = "GpuIdle"
    INFRASTRUCTURE = "Infrastructure"
    INTERNAL_ERROR = "InternalError"
    # rollout
    PROGRESSING = "Progressing"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_ACCESS_DENIED = "ModelAccessDenied"
    MODEL_INTEGRITY = "ModelIntegrity"
    CACHE_VOLUME_FULL = "CacheVolumeFull"
    FORBIDDEN_FILE = "ForbiddenFile"
    MODEL_TOO_LARGE = "ModelTooLarge"
    CONTAINER_CRASHED = "ContainerCrashed"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    WRONG_MODEL_SERVED = "WrongModelServed"
    SERVICE_ERRORS = "ServiceErrors"
    WRONG_ANSWERS = "WrongAnswers"
    SMOKE_TEST_FAILED = "SmokeTestFailed"
    SMOKE_TEST_INCONCLUSIVE = "SmokeTestInconclusive"
    ROLLBACK_FAILED = "RollbackFailed"
    DEPLOYMENT_PAUSED = "DeploymentPaused"
    NO_REPLICAS = "NoReplicas"
    QUARANTINED = "Quarantined"
    DEADLINE_TOO_SHORT = "DeadlineTooShort"
    FAILED_CREATE = "FailedCreate"
    REVERTED_BY_OTHER_MANAGER = "RevertedByOtherManager"
    SUPERSEDED = "Superseded"
    PUBLISHED = "Published"


class FailureClass(StrEnum):
    """What kind of failure a reason is; each class has its own rule for trying again."""

    PREEMPTED = "Preempted"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    CUDA_OUT_OF_MEMORY = "CudaOutOfMemory"
    IMAGE_PULL = "ImagePull"
    UNSCHEDULABLE = "Unschedulable"
    DATA = "Data"
    CONFIG = "Config"
    INFRASTRUCTURE = "Infrastructure"
    DEADLINE = "Deadline"
    BUDGET = "Budget"
    INTERNAL = "Internal"
    USER = "User"


class Condition(ContractModel):
    """A Kubernetes condition (meta/v1)."""

    type: Annotated[str, Field(max_length=316)]
    """Kind of condition."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, Field(max_length=1024)]
    """One word, for programs."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """A sentence, for people: place, fact, remedy."""
    observed_generation: int = 0
    """Generation of the spec that this was said about."""
    last_transition_time: str
    """When the status last changed (RFC 3339, UTC)."""


class Progress(ContractModel):
    """How far the running stage is."""

    stage: Stage
    """The running stage."""
    step: int = 0
    """Steps done."""
    total_steps: int = 0
    """Steps in all; 0 when not known."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Share done."""
    loss: Text = ""
    """Training loss of the last steps."""
    tokens_per_second: Text = ""
    """Training speed."""
    eta_seconds: int = 0
    """Estimated seconds to the end of the stage."""
    eta: Text = ""
    """The same for people, such as `4m10s`; it ends with `(stale)` while `stale` is true."""
    message: Text = ""
    """What is being done."""
    updated_at: Text = ""
    """When the stage said so (RFC 3339, UTC)."""
    moved_at: Text = ""
    """When a new step, or a new message, was last seen (RFC 3339, UTC)."""
    stale: bool = False
    """True when the pod's log could not be read or has been silent for 2 minutes."""


MOST_ENDED_PODS = 8
"""That an attempt tells of, beside those that run."""


class PodUse(ContractModel):
    """A pod's hold on a node."""

    name: Text
    """The pod; empty for several older pods that are told of together."""
    pods: int = 1
    """How many pods this tells of."""
    since: Text = ""
    """When the newest of them got its node (RFC 3339, UTC)."""
    seconds: int = 0
    """How long they held their nodes; of a running pod in whole minutes."""
    taken_by: Text = ""
    """Preempted, Evicted or NodeLost when Kubernetes took it away, Suspended when a queue did; else empty."""


class Attempt(ContractModel):
    """One Job of one stage."""

    stage: Stage
    """The stage."""
    number: Annotated[int, Field(ge=0)]
    """0 for the first try of the stage."""
    job: Text
    """Name of the Job."""
    result: Text = "Running"
    """Running, Succeeded, or a reason."""
    exit_code: int | None = None
    """Exit code of the container, when it ended."""
    message: Annotated[str, Field(max_length=2048)] = ""
    """What the stage said at its end."""
    node: Text = ""
    """Where it ran."""
    started_at: Text = ""
    """RFC 3339, UTC."""
    finished_at: Text = ""
    """RFC 3339, UTC."""
    failure_class: FailureClass | None = None
    """Class of the result, when it failed."""
    pods: Annotated[list[PodUse], Field(max_length=MOST_PODS + MOST_ENDED_PODS)] = []
    """Pods of the Job that got a node, oldest first. Of many that have ended the older ones are told of together."""
    queue_seconds: int = 0
    """How long it waited for its first node."""
    gpu_seconds: int = 0
    """Seconds times GPUs that its pods held."""
    lost_gpu_seconds: int = 0
    """The part of them whose work no later attempt went on from."""
    from_step: int | None = None
    """Step that it went on from, as far as was seen."""
    to_step: int | None = None
    """Last step that was seen."""
    overlay: TrainingOverlay | None = None
    """What it trained with instead of the spec's settings, after memory ran out."""
    changed: Text = ""
    """How that differs from the attempt before, in words."""
    last_log_lines: Annotated[list[Text], Field(max_length=20)] = []
    """End of the log of a failed attempt."""


class ForgottenAttempts(ContractModel):
    """Attempts that fell off the list; what they cost still counts."""

    stage: Stage
    """The stage."""
    result: Text
    """What they ended with."""
    count: int = 0
    """How many."""
    taken: Annotated[dict[str, int], Field(max_length=4)] = {}
    """How often Kubernetes took a pod of theirs away, by class."""
    held_seconds: int = 0
    """How long their pods held nodes."""
    queue_seconds: int = 0
    """How long they waited."""
    gpu_seconds: int = 0
    """Seconds times GPUs."""
    lost_gpu_seconds: int = 0
    """The part of them that was lost."""


class Usage(ContractModel):
    """What the run cost so far, all attempts together."""

    gpu_seconds: int = 0
    """Seconds times GPUs that were held."""
    lost_gpu_seconds: int = 0
    """The part of them whose work was lost to failures and preemption."""
    held_seconds: int = 0
    """How long pods of training and evaluation held their nodes."""
    queue_seconds: int = 0
    """How long attempts waited for their first node."""
    cost: Text = ""
    """Price of the GPU seconds, such as `12.40 EUR`; empty when the operator knows no price."""


class DatasetStatus(ContractModel):
    """The dataset that the run trains on."""

    digest: Text
    """sha256 of the sorted rows."""
    documents: int = 0
    """Documents kept."""
    training_examples: int = 0
    """Examples to train on."""
    evaluation_examples: int = 0
    """Examples kept back: other questions about documents that are taught."""
    transfer_examples: int = 0
    """Examples about documents that are not taught."""
    dropped: int = 0
    """Documents and rows dropped with a reason (see the dataset's report)."""
    changed_documents: int | None = None
    """Documents that came, went or changed since the dataset of `spec.compareWith`."""


class MetricStatus(ContractModel):
    """One number of the evaluation."""

    name: Text
    """The metric."""
    base: Text = ""
    """The untuned model."""
    new: Text = ""
    """The tuned model."""


class EvaluationStatus(ContractModel):
    """The verdict."""

    passed: bool
    """All gates hold."""
    gate: Text = ""
    """Passed, or the first gate that failed, in words."""
    metrics: Annotated[list[MetricStatus], Field(max_length=16)] = []
    """Base against new."""
    report_uri: Text = ""
    """The HTML report."""
    reader_questions: Annotated[list[ReaderQuestion], Field(max_length=MOST_READER_QUESTIONS)] = []
    """Questions that the new model answered right; some are asked again through the target's Service."""


class ArtifactStatus(ContractModel):
    """The stored model."""

    uri: Text
    """Folder in the store."""
    manifest_sha256: Text
    """sha256 of manifest.json, which names every file with its sha256."""
    size_bytes: int = 0
    """Size of the files together."""
    serving_bytes: int = 0
    """Size of the files that the model server needs; 0 when the stage did not say."""
    context_bytes_per_token: int = 0
    """Memory that the model server takes for a token of context; 0 when not known."""


class RolloutPhase(StrEnum):
    """Where the rollout is."""

    PREFLIGHT = "Preflight"
    SMOKE_TESTING = "SmokeTesting"
    PROGRESSING = "Progressing"
    VERIFYING = "Verifying"
    SUCCEEDED = "Succeeded"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    ROLLBACK_FAILED = "RollbackFailed"
    SUPERSEDED = "Superseded"


class ModelPointer(ContractModel):
    """The three values that a pod template pins; all derived from content."""

    uri: Text = ""
    """MODEL_URI."""
    manifest_sha256: Text = ""
    """MODEL_MANIFEST_SHA256."""
    model_id: Text = ""
    """MODEL_ID, `sha256:<manifest sha256>`."""


class RolloutStatus(ContractModel):
    """The model going live."""

    phase: RolloutPhase
    """Where it is."""
    target: Text = ""
    """Such as `deployment/chat`."""
    done: Annotated[list[Text], Field(max_length=9)] = []
    """Deployments that serve the model already, in their order."""
    done_uids: Annotated[dict[str, Text], Field(max_length=9)] = {}
    """uid of each of those objects; one that is made anew without a model gets this one again."""
    target_uid: Text = ""
    """uid of the object that was patched."""
    current: ModelPointer | None = None
    """What the run put into the template."""
    previous: ModelPointer | None = None
    """What was there before; put back when the new pods fail."""
    smoke_attempts: int = 0
    """How many Jobs were made to try the model beside the target."""
    smoke_test: Text = ""
    """How it passed; empty while it has not."""
    patched_at: Text = ""
    """When (RFC 3339, UTC)."""
    service: Text = ""
    """What the Services of the targets answered when they were asked as readers ask them, in numbers; told at the end
    of each target."""
    patched_generation: int = 0
    """Generation of the target right after the patch."""
    reverts: int = 0
    """How often somebody took the values out again while the model was rolling out."""
    reverted_at: Text = ""
    """When that was seen last (RFC 3339, UTC)."""
    reason: Text = ""
    """Why it was rolled back."""
    message: Text = ""
    """The same in words."""
    quarantine: Text = ""
    """Why no later run rolls this model out to the target by itself, and the command that lifts it."""


class FineTuneRunStatus(ContractModel):
    """What is so."""

    observed_generation: int = -1
    """Generation of the spec that this status speaks of; -1 before the first look."""
    phase: Phase | None = None
    """Where the run is."""
    conditions: Annotated[list[Condition], Field(max_length=16)] = []
    """Ready, Reconciling and Stalled as in kstatus, then one a stage."""
    run_key: Text = ""
    """sha256 of the training part of the spec, base model, dataset and trainer version."""
    base_model: Text = ""
    """The base model at its commit; every stage after the dataset takes exactly this one."""
    adopted: bool = False
    """A finished model with the same run key was found in the store; nothing was trained."""
    progress: Progress | None = None
    """The running stage."""
    attempts: Annotated[list[Attempt], Field(max_length=20)] = []
    """Every Job, newest last; older ones fall off when there are more than twenty."""
    forgotten: Annotated[list[ForgottenAttempts], Field(max_length=64)] = []
    """What fell off `attempts`."""
    usage: Usage | None = None
    """What the run cost so far."""
    dataset: DatasetStatus | None = None
    """The dataset."""
    artifact: ArtifactStatus | None = None
    """The stored model."""
    evaluation: EvaluationStatus | None = None
    """The verdict."""
    rollout: RolloutStatus | None = None
    """The model going live."""
    start_time: Text = ""
    """When the first Job was made (RFC 3339, UTC)."""
    completion_time: Text = ""
    """When the run ended (RFC 3339, UTC)."""
