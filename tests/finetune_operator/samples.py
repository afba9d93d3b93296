"""Runs, Jobs, pods and Deployments for the tests, small and complete. Not a test itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.run_status import (
    ArtifactStatus,
    Attempt,
    Condition,
    DatasetStatus,
    EvaluationStatus,
    FineTuneRunStatus,
    ModelPointer,
    Phase,
)
from finetune_contract.stage_protocol import (
    DatasetFacts,
    EvaluationFacts,
    ModelFacts,
    Stage,
    StageReport,
    TrainingFacts,
)
from finetune_operator.actions import Decision
from finetune_operator.child_names import job_name
from finetune_operator.observed import (
    ContainerFacts,
    DeploymentFacts,
    EnvEntry,
    JobFacts,
    Observed,
    PodFacts,
    Run,
    TemplateContainer,
    Termination,
)
from finetune_operator.timestamps import to_rfc3339

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
UID = "0b7e4a52-3d0f-4c55-9a34-0d6f2f6f4a11"
DIGEST = "d" * 64
KEY = "c" * 64
MANIFEST = "a" * 64
OLD_MANIFEST = "b" * 64
URI = f"s3://models/runs/{KEY}/model"
NEW_MODEL = ModelPointer(uri=URI, manifest_sha256=MANIFEST, model_id=f"sha256:{MANIFEST}")
OLD_MODEL = ModelPointer(
    uri="s3://models/old", manifest_sha256=OLD_MANIFEST, model_id=f"sha256:{OLD_MANIFEST}"
)


def later(seconds: float) -> datetime:
    """So long after noon."""
    return NOON + timedelta(seconds=seconds)


def at(seconds: float) -> str:
    """The same as the API server writes it."""
    return to_rfc3339(later(seconds))


def a_rollout(**changes: Any) -> dict[str, Any]:
    """Without a smoke test, which has stories of its own."""
    target = {"deployment": {"name": "chat"}}
    return {"mode": "Automatic", "target": target, "smokeTest": {"questions": 0}} | changes


def a_spec(**changes: Any) -> dict[str, Any]:
    """A spec as YAML would give it, with every kind of Secret."""
    spec: dict[str, Any] = {
        "baseModel": {
            "uri": "hf://google/gemma-2-2b@main",
            "tokenSecretRef": {"name": "hugging-face", "key": "token"},
        },
        "dataset": {
            "sources": [
                {
                    "name": "blog",
                    "wordpress": {
                        "url": "https://blog.example.org",
                        "credentialsSecretRef": {"name": "wordpress"},
                    },
                }
            ],
            "knowledgeBase": {
                "weaviate": {
                    "url": "http://weaviate:8080",
                    "apiKeySecretRef": {"name": "weaviate", "key": "apiKey"},
                }
            },
        },
        "store": {"s3": {"bucket": "models", "credentialsSecretRef": {"name": "s3"}}},
        "rollout": a_rollout(),
    }
    return spec | changes


def a_run(status: FineTuneRunStatus | None = None, generation: int = 1, **changes: Any) -> Run:
    """A run named blog; `changes` replace top fields of its spec."""
    spec = a_spec(**changes)
    return Run(
        namespace="demo",
        name="blog",
        uid=UID,
        generation=generation,
        resource_version="7",
        spec=FineTuneRunSpec.model_validate(spec),
        spec_as_written=spec,
        status=status or FineTuneRunStatus(),
    )


def after(run: Run, decision: Decision) -> Run:
    """The run as it is read again once the decision's status is written."""
    return replace(run, status=decision.status)


def a_report(stage: Stage, **changes: Any) -> StageReport:
    """What a stage says when all went well."""
    facts: dict[Stage, dict[str, Any]] = {
        Stage.DATASET: {
            "dataset": DatasetFacts(
                digest=DIGEST,
                run_key=KEY,
                documents=44,
                training_examples=800,
                evaluation_examples=80,
                transfer_examples=20,
            )
        },
        Stage.TRAIN: {"training": TrainingFacts(steps=100, final_loss=0.4)},
        Stage.PACKAGE: {"model": ModelFacts(uri=URI, manifest_sha256=MANIFEST, size_bytes=1000)},
        Stage.EVALUATE: {"evaluation": EvaluationFacts(passed=True, gate="passed")},
    }
    return StageReport(stage=stage, **(facts[stage] | changes))


def ended(code: int, message: str = "", reason: str = "") -> ContainerFacts:
    """A stage's container that ended."""
    words = reason or ("Completed" if code == 0 else "Error")
    return ContainerFacts("stage", terminated=Termination(code, words, message))


RUNNING_CONTAINER = ContainerFacts("stage", running=True, ready=True)


def a_pod(container: ContainerFacts | None = RUNNING_CONTAINER, **changes: Any) -> PodFacts:
    """A stage's pod."""
    containers = (container,) if container else ()
    pod = PodFacts("pod-1", created_at=at(0), node="node-1", containers=containers)
    return replace(pod, **changes)


def a_job(stage: Stage, attempt: int = 0, pod: PodFacts | None = None, **changes: Any) -> JobFacts:
    """A Job of the run, made at noon."""
    name = job_name("blog", UID, stage, attempt)
    job = JobFacts(name, stage, attempt, created_at=at(0), pods=(pod,) if pod else ())
    return replace(job, **changes)


def a_succeeded_job(stage: Stage, attempt: int = 0, report: StageReport | None = None) -> JobFacts:
    """A Job whose stage said its report."""
    message = (report or a_report(stage)).to_message()
    return a_job(stage, attempt, a_pod(ended(0, message)), complete=True)


def a_failed_job(stage: Stage, code: int, attempt: int = 0, message: str = "", **changes: Any) -> JobFacts:
    """A Job whose stage ended with an exit code."""
    text = StageReport(stage=stage, exit_code=code, reason="X", message=message).to_message()
    job = a_job(stage, attempt, a_pod(ended(code, text)), failed_reason="PodFailurePolicy")
    return replace(job, **changes)


def an_attempt(stage: Stage, number: int = 0, result: str = "Running", **changes: Any) -> Attempt:
    """A line of the book."""
    finished = "" if result == "Running" else at(0)
    attempt = Attempt(
        stage=stage,
        number=number,
        job=job_name("blog", UID, stage, number),
        result=result,
        started_at=at(-60),
        finished_at=finished,
    )
    return attempt.model_copy(update=changes)


def a_status(
    done: Iterable[Stage] = (), attempts: Iterable[Attempt] = (), **changes: Any
) -> FineTuneRunStatus:
    """A status in which some stages have succeeded."""
    stages = tuple(done)
    status = FineTuneRunStatus(
        observed_generation=1,
        phase=Phase.PENDING,
        attempts=[*(an_attempt(stage, result="Succeeded") for stage in stages), *attempts],
        run_key=KEY if Stage.DATASET in stages else "",
        dataset=DatasetStatus(digest=DIGEST) if Stage.DATASET in stages else None,
        artifact=ArtifactStatus(uri=URI, manifest_sha256=MANIFEST) if Stage.PACKAGE in stages else None,
        evaluation=EvaluationStatus(passed=True, gate="Passed") if Stage.EVALUATE in stages else None,
    )
    return status.model_copy(update=changes)


ALL_STAGES = tuple(Stage)


def a_deployment(pointer: ModelPointer = OLD_MODEL, **changes: Any) -> DeploymentFacts:
    """The target, whole and rolled out."""
    fetch_env = [
        EnvEntry("MODEL_URI", pointer.uri),
        EnvEntry("MODEL_MANIFEST_SHA256", pointer.manifest_sha256),
    ]
    server_env = [EnvEntry("MODEL_ID", pointer.model_id)]
    deployment = DeploymentFacts(
        name="chat",
        uid="chat-uid",
        generation=3,
        observed_generation=3,
        replicas=1,
        updated_replicas=1,
        total_replicas=1,
        available_replicas=1,
        init_containers=(TemplateContainer("model-fetch", tuple(e for e in fetch_env if e.value)),),
        containers=(
            TemplateContainer("web"),
            TemplateContainer("model-server", tuple(e for e in server_env if e.value), readiness_probe=True),
        ),
    )
    return replace(deployment, **changes)


def a_target_pod(*containers: ContainerFacts, pointer: ModelPointer = NEW_MODEL, **changes: Any) -> PodFacts:
    """A pod of the target."""
    pod = PodFacts("chat-1", created_at=at(0), ip="10.0.0.9", containers=containers, pointer=pointer)
    return replace(pod, **changes)


def seen(*jobs: JobFacts, **changes: Any) -> Observed:
    """The cluster with the target in place."""
    return replace(Observed(jobs=jobs, target=a_deployment()), **changes)


def condition(decision: Decision, kind: str) -> Condition:
    """One condition of a decision."""
    return next(found for found in decision.status.conditions if found.type == kind)
