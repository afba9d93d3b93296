"""What the operator asks of the Kubernetes API: observe a run, apply actions.

What it uses, and so what the operator's Role must allow (there is no `secrets` verb and no `pods/exec`):

| API group              | resource             | verbs                    | where            |
|------------------------|----------------------|--------------------------|------------------|
| finetune-operator.io   | finetuneruns         | get, list, watch         | watched          |
| finetune-operator.io   | finetuneruns/status  | patch                    | watched          |
| finetune-operator.io   | finetuneruns/finalizers | update                | watched          |
| batch                  | jobs                 | list, watch, create, delete | watched       |
| (core)                 | pods                 | list, watch              | watched          |
| (core)                 | pods/log             | get                      | watched          |
| (core)                 | configmaps           | get, create, patch       | watched          |
| (core)                 | services             | list, create             | watched          |
| (core)                 | events               | create                   | watched          |
| (core)                 | persistentvolumeclaims | get                    | watched          |
| apps                   | deployments          | get, list, watch, patch  | watched          |
| kueue.x-k8s.io         | workloads            | list                     | watched, if there |
| coordination.k8s.io    | leases               | get, create, update      | operator's own   |

What schedules ask for besides is in schedules/schedule_cluster.py.

Nothing writes a finalizer: ownerReferences with blockOwnerDeletion need `update` on the owner's finalizers where the
admission plugin OwnerReferencesPermissionEnforcement is on (OpenShift).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from kubernetes.aio import client

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import FineTuneRunStatus, RolloutPhase, RolloutStatus
from finetune_contract.stage_protocol import CONTAINER_NAME
from finetune_operator import job_manifest, kueue, reading, side_by_side
from finetune_operator.actions import Action, CreateJob, CreateSmokeTest, DeleteJob, PatchTarget, WriteRecord
from finetune_operator.api_group import (
    API_VERSION,
    FIELD_MANAGER,
    KIND,
    LABEL_RUN_UID,
    PLURAL,
    objects,
    within,
)
from finetune_operator.api_server import APPLY, ApiServer
from finetune_operator.attempts import RUNNING
from finetune_operator.children import Children, children_of, pods_may_be_older
from finetune_operator.errors import (
    AlreadyThere,
    ClusterRefused,
    ClusterUnavailable,
    FieldConflict,
    NotFound,
    OperatorError,
    StaleObject,
)
from finetune_operator.events import RunEvent, event_body
from finetune_operator.lifecycle import asks_for_record, asks_for_target
from finetune_operator.observed import (
    ContainerFacts,
    DeploymentFacts,
    JobFacts,
    Observed,
    PodFacts,
    Refusal,
    Run,
    RunKey,
    ServedModel,
    ServiceFacts,
    SmokeJob,
)
from finetune_operator.pod_answers import ask_pods
from finetune_operator.rollout.keeping import given_back, keeps_target, kept_waiting, lost_its_model
from finetune_operator.rollout.progress import pods_with, silent_failures
from finetune_operator.rollout.record import read_history, read_quarantine, record_name
from finetune_operator.rollout.rivals import rivals
from finetune_operator.rollout.room import claim_of
from finetune_operator.rollout.service_check import questions_for
from finetune_operator.rollout.service_lookup import find_service
from finetune_operator.rollout.states import rehearsal
from finetune_operator.rollout.target_shape import claim_size
from finetune_operator.rollout.targets import current_target, targets
from finetune_operator.service_answers import Asked, ServiceAsker

logger = logging.getLogger(__name__)

LOG_SECONDS = 5
"""The API server asks the kubelet for a log; a node that has just died does not answer."""
LOG_LINES = 20
END_LOG_LINES = 200
"""Of a container that ended: its progress lines are left out, and twenty others shall remain."""
LOG_BYTES = 65536
LAST_WORDS_LINES = 3
LAST_WORDS_LENGTH = 400
KUEUE_LOOK_SECONDS = 300.0
"""Whether Kueue is installed is asked this often, and only while a Job waits for it."""

Json = dict[str, Any]


@contextlib.asynccontextmanager
async def connected(trainer_image: str) -> AsyncIterator[Cluster]:
    """The cluster, until the block ends."""
    async with client.ApiClient() as api:
        cluster = Cluster(api, trainer_image)
        try:
            yield cluster
        finally:
            await cluster.close()


class Cluster:
    """The API server as the operator sees it."""

    def __init__(self, api: client.ApiClient, trainer_image: str) -> None:
        self._server = ApiServer(api)
        self._trainer_image = trainer_image
        self._kueue_version = ""
        self._kueue_asked_at: float | None = None
        self._services = ServiceAsker()

    @property
    def server(self) -> ApiServer:
        """For whoever asks it for something else."""
        return self._server

    async def close(self) -> None:
        """Ask no Service any more."""
        await self._services.close()

    # runs

    async def list_runs(self, namespace: str) -> list[Json]:
        """All runs of a namespace, or of every one for `*`, as JSON."""
        return await self._server.list(objects(namespace, PLURAL))

    def run_pages(self, namespace: str) -> AsyncIterator[list[Json]]:
        """The same page by page, for whoever needs not hold them all."""
        return self._server.pages(objects(namespace, PLURAL))

    def job_pages(self, namespace: str, *, ended: bool = False) -> AsyncIterator[list[Json]]:
        """Jobs of all runs.

        Args:
            ended: those too that ended well; there are more and more of them.
        """
        query = {"labelSelector": LABEL_RUN_UID} | ({} if ended else {"fieldSelector": "status.successful=0"})
        return self._server.pages(f"/apis/batch/v1{within(namespace)}/jobs", query)

    def pod_pages(self, namespace: str, *, ended: bool = False) -> AsyncIterator[list[Json]]:
        """Pods of all runs, those that have ended only where they are asked for."""
        going_on = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
        query = {"labelSelector": LABEL_RUN_UID} | ({} if ended else going_on)
        return self._server.pages(f"/api/v1{within(namespace)}/pods", query)

    async def may_list_runs(self, namespace: str) -> None:
        """Raises what is in the way of listing the runs of a namespace, or of every one."""
        async for _ in self.run_pages(namespace):
            return

    async def read_run(self, key: RunKey) -> Json | None:
        """The run as JSON; None when it is gone."""
        try:
            return await self._server.call("GET", f"{objects(key.namespace, PLURAL)}/{key.name}")
        except NotFound:
            return None

    async def write_status(self, run: Run, status: FineTuneRunStatus) -> str:
        """Write the whole status; refused as stale when the run changed since it was read.

        Returns:
            The run's new version.
        """
        return await self.write_status_of(run.key, run.resource_version, status.to_wire())

    async def write_status_of(
        self, key: RunKey, resource_version: str, status: Json | dict[str, object]
    ) -> str:
        """The same for a run that could not be read into a Run."""
        path = f"{objects(key.namespace, PLURAL)}/{key.name}"
        return await self._server.apply_status(path, KIND, key.name, resource_version, status)

    async def publish(self, run: Run, events: Sequence[RunEvent], now: str) -> None:
        """Write Kubernetes Events. They are news, not state: one that is lost is only logged."""
        place = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": run.name,
            "namespace": run.namespace,
            "uid": run.uid,
            "resourceVersion": run.resource_version,
        }
        for event in events:
            try:
                path = f"/api/v1/namespaces/{run.namespace}/events"
                await self._server.call("POST", path, None, event_body(place, event, now))
            except OperatorError as error:
                logger.warning("event lost: run=%s reason=%s: %s", run.key, event.reason, error)

    # observing

    async def read_children(self, run: Run) -> Children:
        """The run's Jobs and pods as they are now, with the pods never older than the Jobs that count."""
        selector = {"labelSelector": f"{LABEL_RUN_UID}={run.uid}"}
        pods_of_run = f"/api/v1/namespaces/{run.namespace}/pods"
        jobs, pods = await asyncio.gather(
            self._server.list(f"/apis/batch/v1/namespaces/{run.namespace}/jobs", selector),
            self._server.list(pods_of_run, selector),
        )
        closed = {a.job for a in run.status.attempts if a.result != RUNNING}
        if pods_may_be_older([job for job in jobs if job["metadata"]["name"] not in closed], pods):
            pods = await self._server.list(pods_of_run, selector)
        return children_of(jobs, pods)

    async def observe(self, run: Run, children: Children, *, logs: bool = True) -> Observed:
        """Everything that the next decision needs besides, and nothing else.

        Args:
            logs: whether the ends of logs are wanted, and what Kueue says.
        """
        jobs, pods = children.jobs_and_pods()
        jobs += reading.gone_jobs(jobs, pods)
        facts, smoke = await asyncio.gather(
            self._jobs(run, jobs, pods, logs=logs), self._smoke_jobs(run, jobs, pods)
        )
        observed = await self._observe_target(run, facts) if asks_for_target(run) else Observed(jobs=facts)
        observed = replace(observed, smoke_jobs=smoke)
        if asks_for_record(run):
            return await self._with_record(run, observed, current_target(run))
        return observed

    async def _with_record(self, run: Run, observed: Observed, target: DeploymentTarget | None) -> Observed:
        """With what is on the record of a target."""
        if target is None:
            return observed
        try:
            path = f"/api/v1/namespaces/{run.namespace}/configmaps/{record_name(target.name)}"
            body = await self._server.call("GET", path)
        except NotFound:
            return observed
        return replace(
            observed,
            history=read_history(body),
            quarantine=read_quarantine(body),
            recorded=body.get("data") or {},
        )

    async def _jobs(
        self, run: Run, jobs: list[Json], pods: list[Json], *, logs: bool
    ) -> tuple[JobFacts, ...]:
        open_jobs = {a.job for a in run.status.attempts if a.result == RUNNING}
        known = {a.job for a in run.status.attempts}

        async def facts_of(body: Json) -> JobFacts | None:
            name = body["metadata"]["name"]
            pod_facts = tuple(reading.pod(pod) for pod in reading.pods_of(body, pods))
            asks = logs and (name in open_jobs or name not in known)
            job = reading.job(body, pod_facts, None)
            if job is not None and asks:
                tail = await self._log_of_job(run, job, ended_well=reading.succeeded(body))
                job = replace(job, log_tail=tail)
            if logs and job is not None and job.suspended and not job.over and run.spec.scheduling.queue_name:
                return replace(job, queue_words=await self._queue_words(body))
            return job

        found = await asyncio.gather(*(facts_of(body) for body in jobs))
        return tuple(job for job in found if job is not None)

    async def _smoke_jobs(self, run: Run, jobs: list[Json], pods: list[Json]) -> tuple[SmokeJob, ...]:
        target = current_target(run)
        rollout = run.status.rollout
        looks_on = rollout is not None and rollout.phase is RolloutPhase.SMOKE_TESTING

        async def facts_of(body: Json) -> SmokeJob:
            seen = [reading.pod(pod) for pod in reading.pods_of(body, pods)]
            if target is not None and looks_on:
                told = (self._with_last_words(run.namespace, target, pod) for pod in seen)
                seen = await asyncio.gather(*told)
            return reading.smoke_job(body, tuple(seen))

        mine = (body for body in jobs if reading.is_smoke_test(body))
        return tuple(await asyncio.gather(*(facts_of(body) for body in mine)))

    async def _queue_words(self, job: Json) -> str:
        """What Kueue says of a Job that it holds back; empty where it is not installed, or may not be asked."""
        metadata = job["metadata"]
        now = asyncio.get_running_loop().time()
        if self._kueue_asked_at is None or now - self._kueue_asked_at > KUEUE_LOOK_SECONDS:
            self._kueue_asked_at = now
            try:
                self._kueue_version = kueue.served_version(
                    await self._server.call("GET", f"/apis/{kueue.GROUP}")
                )
            except OperatorError:
                self._kueue_version = ""
        if not self._kueue_version:
            return ""
        path = f"/apis/{kueue.GROUP}/{self._kueue_version}/namespaces/{metadata['namespace']}/workloads"
        selector = {"labelSelector": f"{kueue.LABEL_JOB_UID}={metadata['uid']}"}
        try:
            return kueue.words_of(await self._server.list(path, selector))
        except OperatorError as error:
            logger.info(
                "Workload not readable: job=%s/%s: %s", metadata["namespace"], metadata["name"], error
            )
            return ""

    async def _log_of_job(self, run: Run, job: JobFacts, *, ended_well: bool) -> tuple[str, ...] | None:
        """The end of the newest pod's log, unless its report tells all; of pods that share a stage, what all say."""
        shares = side_by_side.shares(run.spec, job.stage)
        if shares == 1:
            return None if ended_well else await self._log_tail(run.namespace, job.pods)
        tails = await asyncio.gather(*(self._log_tail(run.namespace, (pod,)) for pod in job.pods))
        return side_by_side.log_of_all(job.pods, tails, shares)

    async def _log_tail(self, namespace: str, pods: tuple[PodFacts, ...]) -> tuple[str, ...] | None:
        """The end of the newest pod's log; None when there is none yet or the kubelet does not answer."""
        container = pods[-1].container(CONTAINER_NAME) if pods else None
        if container is None or not (container.running or container.terminated):
            return None
        if pods[-1].silent(CONTAINER_NAME):
            return None  # the API server would wait for its kubelet, and a worker for the API server
        lines = END_LOG_LINES if container.terminated else LOG_LINES
        return await self._log_of(namespace, pods[-1].name, container, lines)

    async def _log_of(
        self, namespace: str, pod: str, container: ContainerFacts, lines: int
    ) -> tuple[str, ...] | None:
        """The end of a container's log, of its previous life when it has not ended in this one."""
        query = {"container": container.name, "tailLines": str(lines), "limitBytes": str(LOG_BYTES)}
        if container.last_terminated and not container.terminated:
            query["previous"] = "true"
        try:
            path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
            text = await self._server.text("GET", path, query, timeout=LOG_SECONDS)
        except OperatorError as error:
            logger.info("log not readable: pod=%s/%s: %s", namespace, pod, error)
            return None
        return tuple(line.rstrip() for line in text.splitlines())

    async def _observe_target(self, run: Run, jobs: tuple[JobFacts, ...]) -> Observed:
        deployments = f"/apis/apps/v1/namespaces/{run.namespace}/deployments"
        if keeps_target(run.status):
            return replace(await self._observe_lost(run, deployments), jobs=jobs)
        target = current_target(run)
        if target is None:
            return Observed(jobs=jobs)
        try:
            body = await self._server.call("GET", f"{deployments}/{target.name}")
        except NotFound:
            others = await self._server.list(deployments)
            return Observed(jobs=jobs, deployments=tuple(other["metadata"]["name"] for other in others))
        if not run.status.attempts and len(targets(run.spec)) > 1:
            names = tuple(other["metadata"]["name"] for other in await self._server.list(deployments))
            missing = next((one.name for one in targets(run.spec) if one.name not in names), "")
            if missing:
                return Observed(jobs=jobs, deployments=names, missing_target=missing)
        deployment = reading.deployment(target, body)
        rollout = run.status.rollout
        refusal = await self._rehearse(run, deployment)
        if rollout is None or rollout.phase is RolloutPhase.PREFLIGHT:
            if run.status.evaluation:
                deployment = await self._with_claim(run.namespace, target, deployment)
            bodies = await self.list_runs(run.namespace) if run.status.evaluation else []
            rivalry = rivals(run.uid, target.name, bodies)
            return Observed(
                jobs=jobs,
                target=deployment,
                refusal=refusal,
                rolling_run=rivalry.rolling,
                newer_run=rivalry.newer,
            )
        if rollout.phase is RolloutPhase.SMOKE_TESTING:
            return Observed(jobs=jobs, target=deployment)
        pods = await self._target_pods(run.namespace, target, body)
        served: tuple[ServedModel, ...] = ()
        service: ServiceFacts | None = None
        if rollout.phase in (RolloutPhase.PROGRESSING, RolloutPhase.VERIFYING):
            service = await self._ask_service(run, target, rollout, body)
        else:
            self._services.end(run.uid)
        if rollout.phase is RolloutPhase.VERIFYING and rollout.current is not None:
            ready = [pod for pod in pods_with(pods, rollout.current) if pod.ready]
            served = await ask_pods(ready, run.spec.rollout.serving_port)
        return Observed(
            jobs=jobs, target=deployment, target_pods=pods, refusal=refusal, served=served, service=service
        )

    async def _observe_lost(self, run: Run, deployments: str) -> Observed:
        """The first target of an ended run that was made anew without its model and can take it, else the first of
        those that cannot; nothing when all have it."""
        lost: list[tuple[DeploymentTarget, DeploymentFacts]] = []
        for target in targets(run.spec):
            try:
                body = await self._server.call("GET", f"{deployments}/{target.name}")
            except NotFound:
                continue
            deployment = reading.deployment(target, body)
            if lost_its_model(run, deployment):
                lost.append((target, deployment))
        runs = await self.list_runs(run.namespace) if lost else []
        waiting: Observed | None = None
        for target, deployment in lost:
            refusal = await self._rehearse(run, deployment)
            rivalry = rivals(run.uid, target.name, runs)
            seen = Observed(
                target=deployment,
                refusal=refusal,
                rolling_run=rivalry.rolling,
                newer_run=rivalry.newer,
            )
            seen = await self._with_record(run, seen, target)
            if given_back(run, seen) is not None:
                return seen
            if waiting is None or kept_waiting(run, waiting) is None:
                waiting = seen
        return waiting or Observed()

    async def _ask_service(
        self, run: Run, target: DeploymentTarget, rollout: RolloutStatus, deployment: Json
    ) -> ServiceFacts:
        """What the target's Service has answered since the target was changed."""
        wanted = run.spec.rollout.service
        first = target.name == targets(run.spec)[0].name
        try:
            services = await self._server.list(f"/api/v1/namespaces/{run.namespace}/services")
        except (ClusterRefused, NotFound) as error:
            return ServiceFacts(problem=f"Services may not be listed, upgrade the operator's Role: {error}")
        found = find_service(
            services, deployment, wanted.name if first else None, run.spec.rollout.serving_port
        )
        if not found.name:
            return ServiceFacts(problem=found.problem)
        asked = Asked(
            found.name,
            found.ip,
            found.port,
            wanted.chat_path,
            rollout.current.model_id if rollout.current else "",
            watching=rollout.phase is RolloutPhase.VERIFYING,
            questions=questions_for(run.status.evaluation, wanted),
        )
        return self._services.look(f"{run.uid} {target.name} {rollout.patched_at}", asked)

    async def _with_claim(
        self, namespace: str, target: DeploymentTarget, deployment: DeploymentFacts
    ) -> DeploymentFacts:
        """The target, with the size of the claim that models are put into; unchanged when it cannot be read."""
        claim = claim_of(target, deployment)
        if not claim:
            return deployment
        try:
            body = await self._server.call(
                "GET", f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}"
            )
        except (NotFound, ClusterRefused) as error:
            logger.info("claim not readable: claim=%s/%s: %s", namespace, claim, error)
            return deployment
        return replace(deployment, shape=deployment.shape.with_claim(claim, claim_size(body)))

    async def _target_pods(
        self, namespace: str, target: DeploymentTarget, deployment: Json
    ) -> tuple[PodFacts, ...]:
        selector = reading.label_selector((deployment.get("spec") or {}).get("selector") or {})
        if not selector:
            return ()
        bodies = await self._server.list(f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": selector})
        pods = [reading.target_pod(target, body) for body in bodies]
        return tuple(await asyncio.gather(*(self._with_last_words(namespace, target, pod) for pod in pods)))

    async def _with_last_words(self, namespace: str, target: DeploymentTarget, pod: PodFacts) -> PodFacts:
        """The pod, with the end of the log as message of a container that ended badly and left none."""
        containers = list(pod.containers)
        for silent in silent_failures(target, pod):
            lines = await self._log_of(namespace, pod.name, silent, LAST_WORDS_LINES)
            if lines:
                containers[containers.index(silent)] = with_message(silent, " | ".join(lines))
        return replace(pod, containers=tuple(containers))

    async def _rehearse(self, run: Run, deployment: DeploymentFacts) -> Refusal | None:
        """The patch as a dry run, where one is near: what would the API server say?"""
        patch = rehearsal(run, deployment)
        if not patch:
            return None
        rehearsed = PatchTarget(deployment.name, patch, run.spec.rollout.force)
        try:
            await self._patch_deployment(run.namespace, rehearsed, dry_run=True)
        except FieldConflict as error:
            return Refusal(str(error), error.owner, error.field)
        except ClusterRefused as error:
            return Refusal(str(error))
        return None

    # acting

    async def apply(self, run: Run, actions: Sequence[Action]) -> None:
        """Carry out what was decided, in order. Every action may be done twice.

        Raises:
            ClusterRefused: the API server will not take one of them; the ones after it were not tried.
        """
        for action in actions:
            match action:
                case CreateJob():
                    await self._create_job(run, action)
                case CreateSmokeTest(name, manifest):
                    await self._create(f"/apis/batch/v1/namespaces/{run.namespace}/jobs", manifest)
                    logger.info("smoke test begun: run=%s job=%s", run.key, name)
                case DeleteJob(name):
                    await self._delete_job(run.namespace, name)
                case PatchTarget():
                    await self._patch_deployment(run.namespace, action, dry_run=False)
                    logger.info("target patched: run=%s deployment=%s", run.key, action.deployment)
                case WriteRecord(manifest):
                    await self._apply_record(run.namespace, manifest)

    async def _create_job(self, run: Run, action: CreateJob) -> None:
        config_maps = f"/api/v1/namespaces/{run.namespace}/configmaps"
        await self._create(config_maps, job_manifest.config_map(run))
        service = job_manifest.service_of(run, action)
        if service is not None:
            await self._create(f"/api/v1/namespaces/{run.namespace}/services", service)
        manifest = job_manifest.job(run, action, self._trainer_image)
        made = await self._create(f"/apis/batch/v1/namespaces/{run.namespace}/jobs", manifest)
        word = "created" if made else "was there already"
        logger.info("job %s: run=%s job=%s", word, run.key, manifest["metadata"]["name"])

    async def _apply_record(self, namespace: str, manifest: Json) -> None:
        """The ConfigMap is ours alone: what somebody else wrote into it goes."""
        name = manifest["metadata"]["name"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        await self._server.call("PATCH", path, query, manifest, APPLY)
        logger.info("record written: configmap=%s/%s", namespace, name)

    async def _create(self, path: str, body: Json) -> bool:
        """POST; False when the object exists. Names hold a piece of the run's uid, so it is ours.

        Raises:
            ClusterUnavailable: too many were made at once, for a quota that counts them.
        """
        try:
            await self._server.call("POST", path, {"fieldManager": FIELD_MANAGER}, body)
        except AlreadyThere:
            return False
        except StaleObject as error:
            raise ClusterUnavailable(str(error)) from error
        return True

    async def _delete_job(self, namespace: str, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        try:
            await self._server.call(
                "DELETE", f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", None, body
            )
        except NotFound:
            return
        logger.info("job deleted: job=%s/%s", namespace, name)

    async def _patch_deployment(self, namespace: str, patch: PatchTarget, *, dry_run: bool) -> None:
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if patch.force else "false"}
        if dry_run:
            query["dryRun"] = "All"
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{patch.deployment}"
        await self._server.call("PATCH", path, query, patch.payload, APPLY)

    # the Lease

    async def read_lease(self, namespace: str, name: str) -> Json | None:
        """The Lease as JSON; None when there is none."""
        try:
            return await self._server.call("GET", f"{_leases(namespace)}/{name}", timeout=5)
        except NotFound:
            return None

    async def create_lease(self, namespace: str, body: Json) -> None:
        """POST a Lease; StaleObject when another was quicker."""
        await self._server.call("POST", _leases(namespace), None, body, timeout=5)

    async def replace_lease(self, namespace: str, name: str, body: Json) -> None:
        """PUT a Lease, guarded by its resourceVersion; StaleObject when another was quicker."""
        await self._server.call("PUT", f"{_leases(namespace)}/{name}", None, body, timeout=5)


def with_message(container: ContainerFacts, words: str) -> ContainerFacts:
    """The container, its end (or the end of its previous life) explained."""
    words = words[-LAST_WORDS_LENGTH:]
    if container.terminated and container.terminated.exit_code != 0:
        return replace(container, terminated=replace(container.terminated, message=words))
    if container.last_terminated:
        return replace(container, last_terminated=replace(container.last_terminated, message=words))
    return container


def _leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
