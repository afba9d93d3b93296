"""From the API server's JSON to frozen facts. Pure; must not know how the JSON came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from finetune_contract.model import ContractModel
from finetune_contract.run_document import InvalidRunDocument, parse_spec
from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import FineTuneRunStatus, Phase, RolloutPhase
from finetune_contract.schedule_crd import KIND as SCHEDULE_KIND
from finetune_contract.stage_protocol import Stage
from finetune_operator.api_group import (
    ANNOTATION_RUN,
    FIELD_MANAGER,
    LABEL_ATTEMPT,
    LABEL_RUN,
    LABEL_STAGE,
    SMOKE_TEST,
)
from finetune_operator.children import name_of_job, pod_ended
from finetune_operator.errors import InvalidRun
from finetune_operator.observed import (
    ConditionFacts,
    ContainerFacts,
    DeploymentFacts,
    EnvEntry,
    JobFacts,
    PodFacts,
    Run,
    RunKey,
    SmokeJob,
    TemplateContainer,
    Termination,
)
from finetune_operator.outlook import OVER
from finetune_operator.rollout.patch import our_variables, pointer_in
from finetune_operator.rollout.target_shape import target_shape
from finetune_operator.usage import RUNNING

Json = Mapping[str, Any]
Status = TypeVar("Status", bound=ContractModel)
_PHASES = {phase.value: phase for phase in Phase}
_STAGES = {stage.value: stage for stage in Stage}
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


def run_key(body: Json) -> RunKey:
    """Where the run lies."""
    return RunKey(body["metadata"]["namespace"], body["metadata"]["name"])


def owning_run(body: Json) -> RunKey | None:
    """The run that a Job or a pod of a stage belongs to; None when it is not one of ours."""
    metadata = body["metadata"]
    name = (metadata.get("annotations") or {}).get(ANNOTATION_RUN) or (metadata.get("labels") or {}).get(
        LABEL_RUN
    )
    return RunKey(metadata["namespace"], name) if name else None


def is_settled(body: Json) -> bool:
    """The run ended and its status speaks of its newest spec: there is nothing to look at."""
    status = body.get("status") or {}
    return status.get("phase") in OVER and status.get("observedGeneration") == body["metadata"].get(
        "generation"
    )


def phase_of(body: Json) -> Phase:
    """Where a run is; Pending before its first look, and where another version of the operator says what."""
    return _PHASES.get(str((body.get("status") or {}).get("phase")), Phase.PENDING)


def waits_for_node(body: Json) -> tuple[Stage, str] | None:
    """The stage whose running attempt has had no node yet, and since when; None when there is none."""
    for attempt in (body.get("status") or {}).get("attempts") or ():
        if attempt.get("result") == RUNNING and not attempt.get("pods"):
            stage = _STAGES.get(attempt.get("stage"))
            if stage is not None:
                return stage, str(attempt.get("startedAt") or "")
    return None


def kept_target_uids(body: Json) -> dict[str, str]:
    """uid by name of the Deployments in which an ended run's model is live; none when it is not."""
    status = body.get("status") or {}
    rollout = status.get("rollout") or {}
    live = status.get("phase") == Phase.SUCCEEDED and rollout.get("phase") == RolloutPhase.SUCCEEDED
    if not live:
        return {}
    last = str(rollout.get("target") or "").removeprefix("deployment/")
    uids = {**(rollout.get("doneUids") or {}), last: rollout.get("targetUid")}
    return {name: str(uid) for name, uid in uids.items() if name and uid}


def wakers(body: Json) -> tuple[object, ...]:
    """What of a run must change for a look at it: not what the operator only noted, such as its progress."""
    metadata, status = body["metadata"], body.get("status") or {}
    return (
        metadata.get("uid"),
        metadata.get("generation"),
        metadata.get("deletionTimestamp"),
        status.get("phase"),
        dict(status.get("rollout") or {}),
    )


def targets_of(body: Json) -> tuple[str, ...]:
    """Names of the Deployments that a run rolls out to, in their order."""
    rollout = (body.get("spec") or {}).get("rollout") or {}
    deployment = (rollout.get("target") or {}).get("deployment") or {}
    names = (deployment.get("name"), *(deployment.get("others") or ()))
    return tuple(str(name) for name in names if name)


def run(body: Json) -> Run:
    """The run.

    Raises:
        InvalidRun: spec or status hold something that this operator's contract does not know.
    """
    metadata = body["metadata"]
    spec = dict(body.get("spec") or {})
    try:
        parsed = parse_spec(spec)
    except InvalidRunDocument as error:
        raise InvalidRun("; ".join(error.lines)) from error
    status = status_of(body, FineTuneRunStatus)
    return Run(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation") or 0),
        resource_version=str(metadata.get("resourceVersion") or ""),
        spec=parsed,
        spec_as_written=spec,
        status=status,
        deleting="deletionTimestamp" in metadata,
        by_schedule=any(
            owner.get("kind") == SCHEDULE_KIND and owner.get("controller")
            for owner in metadata.get("ownerReferences") or ()
        ),
    )


def status_of(body: Json, kind: type[Status]) -> Status:
    """What the operator has said of an object of ours.

    Raises:
        InvalidRun: it holds something that this operator's contract does not know.
    """
    try:
        return kind.model_validate(body.get("status") or {})
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InvalidRun(f"status.{place} was written by another version of the operator") from error


def job(body: Json, pods: tuple[PodFacts, ...], log_tail: tuple[str, ...] | None) -> JobFacts | None:
    """A Job of a run; None when its labels name no stage that this operator knows."""
    labels = body["metadata"].get("labels") or {}
    try:
        stage, attempt = Stage(labels.get(LABEL_STAGE, "")), int(labels.get(LABEL_ATTEMPT, ""))
    except ValueError:
        return None
    return JobFacts(
        body["metadata"]["name"], stage, attempt, log_tail=log_tail, pods=pods, **_job_state(body)
    )


def gone_jobs(jobs: Iterable[Json], pods: Iterable[Json]) -> list[dict[str, Any]]:
    """Jobs that are not there any more while pods of theirs may still run, as Jobs that are being deleted.

    `kubectl delete job` removes the Job first: its pods have their grace period yet, and save a checkpoint meanwhile.
    """
    there = {job["metadata"]["name"] for job in jobs}
    gone: dict[str, dict[str, Any]] = {}
    for body in pods:
        name, metadata = name_of_job(body), body["metadata"]
        if name and name not in there and not pod_ended(body):
            created = str(metadata.get("creationTimestamp") or "")
            told = {"name": name, "labels": metadata.get("labels") or {}, "deletionTimestamp": created}
            gone.setdefault(name, {"metadata": told | {"creationTimestamp": created}})
    return list(gone.values())


def is_smoke_test(job: Json) -> bool:
    """Whether a Job of a run tries its model beside the target."""
    return (job["metadata"].get("labels") or {}).get(LABEL_STAGE) == SMOKE_TEST


def succeeded(job: Json) -> bool:
    """The Job ended well: the report of a pod that worked alone tells everything, and nobody needs its log."""
    return bool(_job_state(job)["complete"])


def smoke_job(body: Json, pods: tuple[PodFacts, ...]) -> SmokeJob:
    """A Job that tries a model."""
    return SmokeJob(body["metadata"]["name"], pods=pods, **_job_state(body))


def _job_state(body: Json) -> dict[str, Any]:
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = {
        condition["type"]: condition
        for condition in status.get("conditions") or ()
        if condition.get("status") == "True"
    }
    failed = conditions.get("Failed") or {}
    suspended = conditions.get("Suspended") or {}
    return {
        "created_at": str(metadata.get("creationTimestamp") or ""),
        "deleting": "deletionTimestamp" in metadata,
        "suspended": bool((body.get("spec") or {}).get("suspend")),
        "suspended_at": str(suspended.get("lastTransitionTime") or ""),
        "complete": "Complete" in conditions,
        "failed_reason": str(failed.get("reason") or "Failed") if failed else "",
        "failed_message": str(failed.get("message") or ""),
        "failed_at": str(failed.get("lastTransitionTime") or ""),
    }


def pods_of(job: Json, pods: Iterable[Json]) -> list[Json]:
    """The pods of a Job; the one that tells most is last (see JobFacts)."""
    name = job["metadata"]["name"]
    conditions = (job.get("status") or {}).get("conditions") or ()
    blamed = " ".join(str(found.get("message") or "") for found in conditions if found["type"] == "Failed")

    def weight(pod: Json) -> tuple[bool, bool, str, str]:
        metadata = pod["metadata"]
        first = (metadata.get("labels") or {}).get(INDEX_LABEL, "0") == "0"
        created = str(metadata.get("creationTimestamp") or "")
        return f"/{metadata['name']} " in blamed, first, created, metadata["name"]

    mine = (pod for pod in pods if name_of_job(pod) == name)
    return sorted(mine, key=weight)


def pod(body: Json) -> PodFacts:
    """A pod."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    disruption = conditions.get("DisruptionTarget") or {}
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    disrupted = disruption.get("status") == "True"
    return PodFacts(
        name=metadata["name"],
        created_at=str(metadata.get("creationTimestamp") or ""),
        node=str(spec.get("nodeName") or ""),
        scheduled_at=str(scheduled.get("lastTransitionTime") or "")
        if scheduled.get("status") == "True"
        else "",
        ip=str(status.get("podIP") or ""),
        phase=str(status.get("phase") or ""),
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        deleting="deletionTimestamp" in metadata,
        unschedulable=str(scheduled.get("message") or "no node fits") if unschedulable else "",
        index=int((metadata.get("labels") or {}).get(INDEX_LABEL) or 0),
        disruption=f"{disruption.get('reason', '')}: {disruption.get('message', '')}" if disrupted else "",
        containers=(
            *(_container(entry, init=True) for entry in status.get("initContainerStatuses") or ()),
            *(_container(entry, init=False) for entry in status.get("containerStatuses") or ()),
        ),
    )


def target_pod(target: DeploymentTarget, body: Json) -> PodFacts:
    """A pod of the rollout's target, with the model that it was made for."""
    return replace(pod(body), pointer=pointer_in(target, _template(body.get("spec") or {})))


def label_selector(selector: Json) -> str:
    """A Deployment's selector as a list's query asks for it; empty when it selects nothing."""
    labels = selector.get("matchLabels") or {}
    parts = [f"{key}={value}" for key, value in sorted(labels.items())]
    for wanted in selector.get("matchExpressions") or ():
        key, values = wanted["key"], ",".join(wanted.get("values") or ())
        words = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append(words[wanted["operator"]])
    return ",".join(parts)


def deployment(target: DeploymentTarget, body: Json) -> DeploymentFacts:
    """The rollout's target."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    pod_spec = (spec.get("template") or {}).get("spec") or {}
    template = _template(pod_spec)
    replicas = spec.get("replicas")
    return DeploymentFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation") or 0),
        observed_generation=int(status.get("observedGeneration") or 0),
        paused=bool(spec.get("paused")),
        replicas=1 if replicas is None else int(replicas),
        updated_replicas=int(status.get("updatedReplicas") or 0),
        total_replicas=int(status.get("replicas") or 0),
        available_replicas=int(status.get("availableReplicas") or 0),
        conditions=tuple(
            ConditionFacts(
                type=condition["type"],
                status=condition["status"],
                reason=str(condition.get("reason") or ""),
                message=str(condition.get("message") or ""),
                last_update_time=str(condition.get("lastUpdateTime") or ""),
                last_transition_time=str(condition.get("lastTransitionTime") or ""),
            )
            for condition in status.get("conditions") or ()
        ),
        init_containers=template.init_containers,
        containers=template.containers,
        shape=target_shape(body, FIELD_MANAGER, our_variables(target)),
        pod_spec=pod_spec,
    )


def _container(body: Json, *, init: bool) -> ContainerFacts:
    state, last = body.get("state") or {}, body.get("lastState") or {}
    waiting = state.get("waiting") or {}
    return ContainerFacts(
        name=body["name"],
        init=init,
        ready=bool(body.get("ready")),
        running="running" in state,
        started_at=str((state.get("running") or {}).get("startedAt") or ""),
        waiting_reason=str(waiting.get("reason") or ""),
        waiting_message=str(waiting.get("message") or ""),
        terminated=_termination(state.get("terminated")),
        last_terminated=_termination(last.get("terminated")),
        restarts=int(body.get("restartCount") or 0),
    )


def _termination(body: Json | None) -> Termination | None:
    if not body:
        return None
    return Termination(
        exit_code=int(body.get("exitCode") or 0),
        reason=str(body.get("reason") or ""),
        message=str(body.get("message") or ""),
        finished_at=str(body.get("finishedAt") or ""),
    )


class _Template(NamedTuple):
    init_containers: tuple[TemplateContainer, ...]
    containers: tuple[TemplateContainer, ...]


def _template(spec: Json) -> _Template:
    return _Template(
        tuple(_template_container(entry) for entry in spec.get("initContainers") or ()),
        tuple(_template_container(entry) for entry in spec.get("containers") or ()),
    )


def _template_container(body: Json) -> TemplateContainer:
    return TemplateContainer(
        name=body["name"],
        env=tuple(
            EnvEntry(entry["name"], str(entry.get("value") or ""), "valueFrom" in entry)
            for entry in body.get("env") or ()
        ),
        readiness_probe=bool(body.get("readinessProbe")),
        restarts_always=body.get("restartPolicy") == "Always",
    )
