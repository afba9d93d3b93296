"""What the operator knows about a stage. Pure; must not know what the stage does inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.run_status import ConditionType, FineTuneRunStatus, Phase
from finetune_contract.stage_protocol import (
    ENV_S3_ACCESS_KEY_ID,
    ENV_S3_SECRET_ACCESS_KEY,
    Stage,
    StageReport,
)

MAX_TEXT_LENGTH = 1024
"""Of a text in the status; a stage's report may hold longer ones."""


@dataclass(frozen=True)
class SecretEnv:
    """An environment variable of a stage that comes from a Secret, and the spec field that asked for it."""

    env: str
    secret: str
    key: str
    spec_field: str


@dataclass(frozen=True)
class StageDefinition:
    """One row of the STAGES table. A stage may start when all stages before it are done."""

    stage: Stage
    condition: ConditionType
    phase: Phase
    needs_key: bool
    """It gets `--run-key` and `--dataset-digest`."""
    uses_gpu: bool
    """It gets `spec.resources.train` and the scheduling of GPU pods; else `spec.resources.other`."""
    grace_seconds: int
    """Time between SIGTERM and SIGKILL."""
    secrets: Callable[[FineTuneRunSpec], tuple[SecretEnv, ...]]
    """The credentials that it needs, and no others."""
    absorb: Callable[[FineTuneRunStatus, StageReport], FineTuneRunStatus | None]
    """What a report of success adds to the status; None when the report lacks what the next stage needs."""
    absorbed: Callable[[FineTuneRunStatus], bool]
    """Whether the status holds what this stage's report had to bring."""
    spreads: bool = False
    """It takes every GPU and node of `spec.resources.train.gpu`; else it takes one GPU."""


def store_secrets(spec: FineTuneRunSpec) -> tuple[SecretEnv, ...]:
    """Credentials of the artifact store."""
    reference = spec.store.s3.credentials_secret_ref
    if reference is None:
        return ()
    place = "spec.store.s3.credentialsSecretRef"
    return (
        SecretEnv(ENV_S3_ACCESS_KEY_ID, reference.name, "accessKeyId", place),
        SecretEnv(ENV_S3_SECRET_ACCESS_KEY, reference.name, "secretAccessKey", place),
    )


def shown_number(value: float | None) -> str:
    """A number from 0 to 1 as the status shows it."""
    return "" if value is None else f"{value:.3f}"
