"""What can go wrong in a stage, whose fault it is, and with which exit code the stage ends.

    TrainerError
    ├── InvalidRun               the spec; never retried
    │   ├── LossRaised           the packaged model answers worse than the trained one; never retried
    │   └── WorkspaceUnusable    the scratch folder is full or read-only; never retried
    ├── DataRejected             the documents or examples; never retried
    ├── SourceRejected           wrong address or credentials; never retried
    ├── StoreRejected            bucket missing, access denied; never retried
    │   └── ArtifactDamaged      an object is missing, or is not what its manifest says; never retried
    ├── KnowledgeBaseRejected    key refused, another schema; never retried
    ├── BaseModelRejected        unknown model, licence, unsafe files; never retried
    ├── Diverged                 the loss is no number any more, or ran away; never retried
    ├── SourceUnavailable        no answer; retried
    ├── StoreUnavailable         no answer; retried
    ├── KnowledgeBaseUnavailable no answer; retried
    ├── CudaOutOfMemory          the operator takes the next rung
    ├── HostOutOfMemory          more memory or a smaller training; never retried
    └── Preempted                told to stop; a checkpoint was written

Messages name the place (a path in the spec), the fact and the remedy. Never a secret.
"""

from __future__ import annotations

from typing import ClassVar

from finetune_contract.stage_protocol import ExitCode


class TrainerError(Exception):
    """A failure with a known cause."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL_ERROR


class InvalidRun(TrainerError):
    """The spec asks for something that cannot be."""

    exit_code = ExitCode.INVALID_RUN


class LossRaised(InvalidRun):
    """Merging or quantising cost more than the spec allows."""


class WorkspaceUnusable(InvalidRun):
    """The scratch folder has no room, or cannot be written."""


class DataRejected(TrainerError):
    """The documents are too few, or no example can be made of them."""

    exit_code = ExitCode.DATA_REJECTED


class SourceRejected(TrainerError):
    """The source is not what the spec says, or refuses the credentials."""

    exit_code = ExitCode.SOURCE_REJECTED


class StoreRejected(TrainerError):
    """The store refuses: no such bucket, access denied."""

    exit_code = ExitCode.STORE_REJECTED


class ArtifactDamaged(StoreRejected):
    """What lies in the store is not whole: an object is missing, or has changed."""


class KnowledgeBaseRejected(TrainerError):
    """The knowledge base refuses: wrong key, a collection with another schema."""

    exit_code = ExitCode.KNOWLEDGE_BASE_REJECTED


class BaseModelRejected(TrainerError):
    """The base model does not exist, is gated, or holds files that are not safe to load."""

    exit_code = ExitCode.BASE_MODEL_REJECTED


class Diverged(TrainerError):
    """The loss stopped being a number, or stayed far above what it had been."""

    exit_code = ExitCode.DIVERGED


class SourceUnavailable(TrainerError):
    """The source did not answer; a later try may succeed."""

    exit_code = ExitCode.SOURCE_UNAVAILABLE


class StoreUnavailable(TrainerError):
    """The store did not answer; a later try may succeed."""

    exit_code = ExitCode.STORE_UNAVAILABLE


class KnowledgeBaseUnavailable(TrainerError):
    """The knowledge base did not answer; a later try may succeed."""

    exit_code = ExitCode.KNOWLEDGE_BASE_UNAVAILABLE


class CudaOutOfMemory(TrainerError):
    """The GPU's memory is too small for this micro-batch and sequence length."""

    exit_code = ExitCode.CUDA_OUT_OF_MEMORY


class HostOutOfMemory(TrainerError):
    """The container's memory limit is too low for training on a CPU with these settings."""

    exit_code = ExitCode.HOST_OUT_OF_MEMORY


class Preempted(TrainerError):
    """SIGTERM came; a checkpoint was written and the next attempt goes on from it."""

    exit_code = ExitCode.PREEMPTED
