"""What is to be done in the cluster, as frozen values. Must not know how it is carried out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from finetune_contract.run_status import FineTuneRunStatus
from finetune_contract.stage_protocol import Stage, TrainingOverlay
from finetune_operator.observed import JobFacts, SmokeJob


@dataclass(frozen=True)
class CreateJob:
    """Start an attempt of a stage; also makes the run's ConfigMap. Twice is the same as once."""

    stage: Stage
    attempt: int
    run_key: str = ""
    dataset_digest: str = ""
    base_model: str = ""
    """At its commit, as the dataset stage found it."""
    overlay: TrainingOverlay | None = None
    """What the training changes after memory ran out."""


@dataclass(frozen=True)
class DeleteJob:
    """Stop an attempt; its pods get SIGTERM and time to save a checkpoint."""

    name: str


def deletions(jobs: Iterable[JobFacts | SmokeJob]) -> tuple[DeleteJob, ...]:
    """What stops those Jobs that may run a pod and were not told to stop."""
    return tuple(DeleteJob(job.name) for job in jobs if job.must_be_stopped)


@dataclass(frozen=True)
class CreateSmokeTest:
    """Try a model beside the target. Twice is the same as once."""

    name: str
    manifest: dict[str, object] = field(hash=False)


@dataclass(frozen=True)
class PatchTarget:
    """Server-side apply of the model's three environment entries."""

    deployment: str
    payload: dict[str, object] = field(hash=False)
    force: bool = False
    """Also where another field manager owns them."""


@dataclass(frozen=True)
class WriteRecord:
    """Server-side apply of the ConfigMap that says which model a target should serve."""

    manifest: dict[str, object] = field(hash=False)


Action = CreateJob | DeleteJob | CreateSmokeTest | PatchTarget | WriteRecord


@dataclass(frozen=True)
class Decision:
    """The run's new status, what to do, and when to look again (None: when something happens)."""

    status: FineTuneRunStatus
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None
