"""How the operator starts a stage and what it gets back. Both sides import this; neither imports the other.

Start: `finetune-stage NAME --run FILE [--run-key K --dataset-digest D --base-model URI]`, credentials by environment.
Back: progress lines on stdout, one JSON object a line with `"finetune": "progress"`; at the end a StageReport in
the termination message (Kubernetes cuts it at 4096 bytes), and an exit code of ExitCode.
"""

from __future__ import annotations

import json
from enum import IntEnum, StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from finetune_contract.model import ContractModel

RUN_FILE = "/etc/finetune/run.json"
"""Where the run's ConfigMap is mounted."""
RUN_FILE_KEY = "run.json"
WORK_FOLDER = "/work"
"""Scratch volume of a stage."""
TERMINATION_MESSAGE_PATH = "/dev/termination-log"
REPORT_LIMIT_BYTES = 4096
CONTAINER_NAME = "stage"

ENV_NODES = "PET_NNODES"
"""Pods of the training. This and the four after it are torchrun's own names for its options: a stage that finds them
starts its processes by itself, and `torchrun --no-python finetune-stage ...` would read them too."""
ENV_PROCESSES = "PET_NPROC_PER_NODE"
"""Processes in this pod, one a GPU."""
ENV_NODE_RANK = "PET_NODE_RANK"
"""Number of this pod, from 0."""
ENV_MASTER_ADDRESS = "PET_MASTER_ADDR"
"""Where the pod with number 0 answers."""
ENV_MASTER_PORT = "PET_MASTER_PORT"
MASTER_PORT = 29400
ENV_COMPLETION_INDEX = "JOB_COMPLETION_INDEX"
"""Number of this pod, from 0; Kubernetes sets it in the pods of an Indexed Job."""

ENV_S3_ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
ENV_S3_SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the name of a variable
ENV_S3_SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105 - the name of a variable
ENV_HF_TOKEN = "HF_TOKEN"  # noqa: S105 - the name of a variable
ENV_WEAVIATE_API_KEY = "WEAVIATE_API_KEY"
ENV_TRAINER_IMAGE = "TRAINER_IMAGE"
"""Image of the stage, best with its digest: the model's provenance names it."""
ENV_TRAINING_OVERLAY = "FINETUNE_TRAINING_OVERLAY"
"""A TrainingOverlay as JSON; unset while the training runs as the spec says."""


ENV_GENERATOR_API_KEY = "GENERATOR_API_KEY"


def wordpress_username_env(source: str) -> str:
    """Environment variable with the user name for a WordPress source."""
    return _of_source("WORDPRESS_USERNAME", source)


def wordpress_password_env(source: str) -> str:
    """Environment variable with the application password for a WordPress source."""
    return _of_source("WORDPRESS_PASSWORD", source)


def wordpress_token_env(source: str) -> str:
    """Environment variable with the bearer token for a WordPress source."""
    return _of_source("WORDPRESS_TOKEN", source)


def front_proxy_username_env(source: str) -> str:
    """Environment variable with the user name for the proxy in front of a WordPress source."""
    return _of_source("FRONT_PROXY_USERNAME", source)


def front_proxy_password_env(source: str) -> str:
    """Environment variable with the password for the proxy in front of a WordPress source."""
    return _of_source("FRONT_PROXY_PASSWORD", source)


def weaviate_source_key_env(source: str) -> str:
    """Environment variable with the API key for a Weaviate source."""
    return _of_source("WEAVIATE_API_KEY", source)


def markdown_access_key_env(source: str) -> str:
    """Environment variable with the S3 access key for a Markdown source."""
    return _of_source("MARKDOWN_ACCESS_KEY_ID", source)


def markdown_secret_key_env(source: str) -> str:
    """Environment variable with the S3 secret key for a Markdown source."""
    return _of_source("MARKDOWN_SECRET_ACCESS_KEY", source)


def _of_source(what: str, source: str) -> str:
    return f"{what}_{source.upper().replace('-', '_')}"


class Stage(StrEnum):
    """The stages, in the order in which they run."""

    DATASET = "dataset"
    TRAIN = "train"
    PACKAGE = "package"
    EVALUATE = "evaluate"


class ExitCode(IntEnum):
    """What a stage's exit code means; podFailurePolicy and the retry budgets are built from it."""

    OK = 0
    INVALID_RUN = 10
    DATA_REJECTED = 11
    SOURCE_REJECTED = 12
    STORE_REJECTED = 13
    KNOWLEDGE_BASE_REJECTED = 14
    BASE_MODEL_REJECTED = 15
    SOURCE_UNAVAILABLE = 20
    STORE_UNAVAILABLE = 21
    KNOWLEDGE_BASE_UNAVAILABLE = 22
    CUDA_OUT_OF_MEMORY = 30
    HOST_OUT_OF_MEMORY = 31
    PREEMPTED = 32
    DIVERGED = 33
    INTERNAL_ERROR = 70


PERMANENT_EXIT_CODES = (
    ExitCode.INVALID_RUN,
    ExitCode.DATA_REJECTED,
    ExitCode.SOURCE_REJECTED,
    ExitCode.STORE_REJECTED,
    ExitCode.KNOWLEDGE_BASE_REJECTED,
    ExitCode.BASE_MODEL_REJECTED,
    ExitCode.DIVERGED,
)
"""Trying again with the same input ends the same way."""


class FetchExitCode(IntEnum):
    """Exit codes of the init container `model-fetch`."""

    OK = 0
    NOT_FOUND = 10
    ACCESS_DENIED = 11
    CHECKSUM_MISMATCH = 12
    SIZE_MISMATCH = 13
    VOLUME_FULL = 14
    FORBIDDEN_FILE = 15
    STORE_UNAVAILABLE = 20


class SmokeExitCode(IntEnum):
    """Exit codes of `finetune-smoke-test`; besides those of `model-fetch` for the questions' file."""

    PASSED = 0
    TOO_MANY_WRONG = 30
    NOT_SERVED = 31


ENV_GOLDEN_QUESTIONS = "GOLDEN_QUESTIONS"
"""Address of the folder with the questions; empty when there are none."""
ENV_SMOKE_QUESTIONS = "SMOKE_TEST_QUESTIONS"
"""How many are asked."""
ENV_SMOKE_MIN_RIGHT = "SMOKE_TEST_MIN_RIGHT"
"""Share that must be answered right."""
ENV_SMOKE_SECONDS = "SMOKE_TEST_SECONDS"
"""How long the model server is waited for, and asked."""


class RunFile(ContractModel):
    """The run as the stages see it: the content of the ConfigMap."""

    name: str
    """metadata.name."""
    namespace: str = ""
    """metadata.namespace; empty on a laptop."""
    uid: str = ""
    """metadata.uid; empty on a laptop."""
    spec: dict[str, object]
    """FineTuneRunSpec as JSON; parsed by the stage, so that an older stage can name a field that it lacks."""


class TrainingOverlay(ContractModel):
    """Settings of `spec.training` that need less GPU memory; an optimizer step sees as many examples as before."""

    micro_batch_size: Annotated[int, Field(ge=1)]
    """Examples in memory at once."""
    gradient_checkpointing: bool
    """Recompute activations instead of holding them."""
    sequence_length: Annotated[int, Field(ge=1)]
    """Longest example in tokens."""

    def to_json(self) -> str:
        """The value of ENV_TRAINING_OVERLAY."""
        return json.dumps(self.to_wire(), separators=(",", ":"), sort_keys=True)


Count = Annotated[int, Field(ge=0, le=2**53)]
"""What every reader of JSON holds exactly, and the run's status too."""
Word = Annotated[str, Field(max_length=1024)]
"""As long as the run's status can hold."""


class StepShare(ContractModel):
    """What the steps of a line are of the whole, when several pods do a part of it each."""

    model_config = ConfigDict(extra="ignore")

    from_step: Count = 0
    """How many of the steps done were done by earlier pods."""
    steps_of_all: Count = 0
    """Steps of all pods together."""


class ProgressLine(ContractModel):
    """One line of JSON on stdout. Fields that a reader does not know are passed over: a newer trainer may say more."""

    model_config = ConfigDict(extra="ignore")

    finetune: Literal["progress"] = "progress"
    stage: Stage
    step: Count = 0
    """Steps done."""
    total_steps: Count = 0
    """Steps in all; 0 when not known."""
    loss: float | None = None
    """Training loss, mean since the last line."""
    evaluation_loss: float | None = None
    """Loss on questions that training never sees, as last measured."""
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    """Most GPU memory used so far, or the process's memory on a CPU."""
    eta_seconds: float | None = None
    share: StepShare | None = None
    """Set when the steps are those of one pod of several that train side by side."""
    message: str = ""
    """What is being done, in words."""
    time: str = ""
    """RFC 3339, UTC."""

    def to_line(self) -> str:
        """One line of compact JSON, without the newline."""
        return json.dumps(self.to_wire(), separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def parse(cls, line: str) -> ProgressLine | None:
        """The progress in a log line, or None when the line is something else."""
        if '"finetune"' not in line:
            return None
        try:
            return cls.model_validate_json(line)
        except ValidationError:
            return None


class DatasetFacts(ContractModel):
    """What the dataset stage found out."""

    digest: Word
    """sha256 of the sorted rows."""
    run_key: Word
    """sha256 of training spec, base model, dataset and trainer version."""
    base_model: Word = ""
    """Address of the base model, at its commit: the later stages take exactly this one, from the store."""
    documents: Count
    training_examples: Count
    evaluation_examples: Count
    transfer_examples: Count = 0
    dropped: Count = 0
    changed_documents: Count | None = None
    """Came, went or changed since the dataset that `spec.compareWith` names; None when it names none."""
    adopted: bool = False
    """A finished model and its verdict lie in the store under this run key: train, package and evaluate are skipped."""


class TrainingFacts(ContractModel):
    """What the train stage did."""

    steps: Count
    final_loss: float
    tokens: int = 0
    tokens_per_second: float = 0.0
    seconds: float = 0.0
    resumed_from_step: Count = 0


class ModelFacts(ContractModel):
    """The stored model."""

    uri: Word
    """Folder in the store."""
    manifest_sha256: Word
    size_bytes: Count
    serving_bytes: Count = 0
    """Size of the files that the model server needs; 0 when not known."""
    context_bytes_per_token: Count = 0
    """Memory for a token of context, keys and values of 16 bits over all layers; 0 when not known."""


class MetricFacts(ContractModel):
    """One number of the evaluation, 0 to 1."""

    name: str
    base: float | None = None
    new: float | None = None


class ReaderQuestion(ContractModel):
    """A golden question as a reader types it; the site finds its own sources for it."""

    question: Annotated[str, Field(min_length=1, max_length=300)]
    """What is asked."""
    must_contain: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=120)]], Field(min_length=1, max_length=4)
    ]
    """Strings that carry the fact; a right answer has all of them."""


MOST_PODS = 64
"""Of one attempt at the same time: the nodes of a training, or the trials of a sweep."""

MOST_READER_QUESTIONS = 5
READER_QUESTIONS_BYTES = 1000
"""Of JSON, all together: a report has 4096 bytes, and more to tell."""


class EvaluationFacts(ContractModel):
    """The verdict."""

    passed: bool
    gate: str = ""
    """`passed`, or the first gate that failed, in words."""
    metrics: Annotated[list[MetricFacts], Field(max_length=16)] = []
    report_uri: str = ""
    reader_questions: Annotated[list[ReaderQuestion], Field(max_length=MOST_READER_QUESTIONS)] = []
    """What the new model answered right from the sources beside it; the site is asked the same after the switch."""


class StageReport(ContractModel):
    """What a stage says at its end."""

    stage: Stage
    exit_code: int = 0
    reason: str = "Completed"
    """A word of run_status.Reason."""
    message: str = ""
    """Place, fact, remedy."""
    dataset: DatasetFacts | None = None
    training: TrainingFacts | None = None
    model: ModelFacts | None = None
    """Set by package; and by dataset when a finished model was adopted."""
    evaluation: EvaluationFacts | None = None
    """Set by evaluate; and by dataset when a finished model was adopted."""

    def to_message(self) -> str:
        """JSON of at most REPORT_LIMIT_BYTES bytes; questions for the site give way first, then the message."""
        report = self
        while len(text := json.dumps(report.to_wire(), separators=(",", ":"))) > REPORT_LIMIT_BYTES:
            if report.evaluation is not None and report.evaluation.reader_questions:
                fewer = {"reader_questions": report.evaluation.reader_questions[:-1]}
                kept = {"evaluation": report.evaluation.model_copy(update=fewer)}
                report = report.model_copy(update=kept)
                continue
            keep = max(0, len(report.message) - max(64, len(text) - REPORT_LIMIT_BYTES))
            if not report.message:
                raise ValueError(f"stage report of {self.stage}: {len(text)} bytes without its message")
            report = report.model_copy(update={"message": report.message[:keep]})
        return text

    @classmethod
    def parse(cls, message: str) -> StageReport | None:
        """The report in a termination message, or None when the container left something else."""
        try:
            return cls.model_validate_json(message)
        except ValidationError:
            return None
