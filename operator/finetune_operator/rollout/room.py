"""Whether a target has the memory, the disk and the time that a model needs, in numbers. Pure.

It is told before anything changes. What it cannot know (free memory on nodes, free bytes on a volume) it does not
guess: the model server and model-fetch measure that themselves, and refuse with their own numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from finetune_contract.run_spec import DeploymentTarget, GgufType
from finetune_contract.run_status import ArtifactStatus, Reason
from finetune_operator.observed import DeploymentFacts, TemplateContainer
from finetune_operator.rollout.patch import fetch_container
from finetune_operator.rollout.target_shape import NO_DEADLINE_SECONDS, TargetShape

MIB = 2**20
BITS_PER_WEIGHT = {GgufType.F16: 16.0, GgufType.Q8_0: 8.5, GgufType.Q4_0: 4.5, GgufType.Q4_K_M: 4.85}
"""llama.cpp's formats with their scales."""
REPACKED = frozenset({GgufType.Q4_0})
"""Laid out anew while loading: a second copy of the weights."""
OVERHEAD_BYTES = 100 * MIB
"""Compute buffers, HTTP server, interpreter; the same as the model server reckons with."""
SLOW_DOWNLOAD_BYTES_PER_SECOND = 25 * MIB
"""A store behind a link of 200 Mbit/s."""
SLOW_LOAD_BYTES_PER_SECOND = 100 * MIB
"""Reading from a network disk, and writing the first token."""
START_SECONDS = 15
"""Scheduling, containers, probes."""
DEFAULT_SLOTS, DEFAULT_SLOT_TOKENS = 2, 2048
DEFAULT_CACHE = "/models"


@dataclass(frozen=True)
class ModelNeed:
    """What serving a model takes, in bytes."""

    file_bytes: int
    memory_bytes: int
    weights_bytes: int
    context_bytes: int

    @property
    def start_seconds(self) -> int:
        """To download, load and answer once, on a slow day."""
        download = self.file_bytes / SLOW_DOWNLOAD_BYTES_PER_SECOND
        load = self.weights_bytes / SLOW_LOAD_BYTES_PER_SECOND
        return START_SECONDS + math.ceil(download + load)


@dataclass(frozen=True)
class Shortage:
    """What there is too little of."""

    reason: Reason
    message: str


def need_of(artifact: ArtifactStatus, gguf: GgufType, server: TemplateContainer | None) -> ModelNeed | None:
    """What the model needs in this server; None when its size is not known.

    Without `serving_bytes` the GGUF file's share is told from the number formats: the artifact holds the weights in
    16 bits and in the served format.
    """
    share = BITS_PER_WEIGHT[gguf] / (BITS_PER_WEIGHT[gguf] + 16)
    size = artifact.serving_bytes or int(artifact.size_bytes * share)
    if size <= 0:
        return None
    slots = _number(server, "MODEL_SERVER_SLOTS", DEFAULT_SLOTS)
    tokens = _number(server, "MODEL_SERVER_SLOT_TOKENS", DEFAULT_SLOT_TOKENS)
    weights = size * (2 if gguf in REPACKED else 1)
    context = slots * tokens * artifact.context_bytes_per_token
    return ModelNeed(size, weights + context + OVERHEAD_BYTES, weights, context)


def shortage(
    target: DeploymentTarget, deployment: DeploymentFacts, need: ModelNeed, timeout_seconds: int
) -> Shortage | None:
    """The first thing that the target has too little of; None when the model should fit."""
    return (
        _memory(target, deployment, need)
        or _disk(target, deployment, need)
        or _time(deployment, need, timeout_seconds)
    )


def surge_words(deployment: DeploymentFacts) -> str:
    """What the Deployment's strategy asks of the nodes, for the status; empty when there is nothing to say."""
    shape = deployment.shape
    if shape.recreates:
        return "strategy Recreate: nothing answers while the new pods start"
    if shape.max_unavailable or not shape.max_surge:
        return ""
    room = f", {mib(shape.pod_memory_bytes)} MiB of requested memory each" if shape.pod_memory_bytes else ""
    pods = "pod" if shape.max_surge == 1 else "pods"
    return (
        f"maxUnavailable is 0: the nodes need room for {shape.max_surge} more {pods}{room} "
        "while the old ones run"
    )


def full_node_cure(shape: TargetShape) -> str:
    """What helps when a new pod finds no node beside the old ones; empty when the strategy is not to blame."""
    if shape.recreates or shape.max_unavailable or not shape.max_surge:
        return ""
    room = f" {mib(shape.pod_memory_bytes)} MiB" if shape.pod_memory_bytes else " its whole request"
    return (
        f"; it needs{room} while the old pods run: free that, or set strategy.rollingUpdate to maxSurge: 0 and "
        "maxUnavailable: 1"
    )


def mib(size: int) -> int:
    """Whole MiB, rounded up."""
    return -(-size // MIB)


def cache_path(fetch: TemplateContainer) -> str:
    """Where model-fetch puts models."""
    return fetch.value("MODEL_CACHE") or DEFAULT_CACHE


def claim_of(target: DeploymentTarget, deployment: DeploymentFacts) -> str:
    """PersistentVolumeClaim that model-fetch fills; empty when models lie elsewhere."""
    fetch = fetch_container(target, deployment)
    volume = deployment.shape.volume_at(fetch.name, cache_path(fetch)) if fetch else None
    return volume.claim if volume else ""


def _memory(target: DeploymentTarget, deployment: DeploymentFacts, need: ModelNeed) -> Shortage | None:
    limit = deployment.shape.memory_limit(target.server_container)
    if limit is None or need.memory_bytes <= limit:
        return None
    parts = (
        f"weights {mib(need.weights_bytes)}, context {mib(need.context_bytes)}, other {mib(OVERHEAD_BYTES)}"
    )
    return Shortage(
        Reason.MODEL_TOO_LARGE,
        f'Deployment "{deployment.name}": container "{target.server_container}" may use {mib(limit)} MiB, the model '
        f"needs about {mib(need.memory_bytes)} MiB ({parts}); set its resources.limits.memory to at least "
        f"{mib(need.memory_bytes)}Mi, or make a run with a smaller packaging.gguf",
    )


def _disk(target: DeploymentTarget, deployment: DeploymentFacts, need: ModelNeed) -> Shortage | None:
    fetch = fetch_container(target, deployment)
    volume = deployment.shape.volume_at(fetch.name, cache_path(fetch)) if fetch else None
    if volume is None or volume.limit_bytes is None or need.file_bytes <= volume.limit_bytes:
        return None
    what = f'PersistentVolumeClaim "{volume.claim}"' if volume.claim else f'emptyDir "{volume.name}"'
    where = "its storage request" if volume.claim else "its sizeLimit"
    return Shortage(
        Reason.CACHE_VOLUME_FULL,
        f'Deployment "{deployment.name}": {what} holds {mib(volume.limit_bytes)} MiB, the model\'s files are '
        f"{mib(need.file_bytes)} MiB; raise {where} to at least {mib(need.file_bytes)}Mi",
    )


def _time(deployment: DeploymentFacts, need: ModelNeed, timeout_seconds: int) -> Shortage | None:
    shape = deployment.shape
    pod_seconds = need.start_seconds + shape.min_ready_seconds
    told = f"a pod may take {pod_seconds}s to load {mib(need.file_bytes)} MiB and be ready"
    deadline = shape.progress_deadline_seconds
    if deadline < NO_DEADLINE_SECONDS and deadline < pod_seconds:
        return Shortage(
            Reason.DEADLINE_TOO_SHORT,
            f'Deployment "{deployment.name}": progressDeadlineSeconds is {deadline}, {told}; set it to at least '
            f"{pod_seconds}",
        )
    at_once = deployment.replicas if shape.recreates else max(1, shape.max_surge + shape.max_unavailable)
    waves = math.ceil(max(1, deployment.replicas) / max(1, at_once))
    if timeout_seconds < waves * pod_seconds:
        return Shortage(
            Reason.DEADLINE_TOO_SHORT,
            f"spec.rollout.timeoutSeconds: it is {timeout_seconds}, {told}, and {deployment.replicas} replicas come "
            f"in {waves} waves; make a run with at least {waves * pod_seconds}, or let more pods come at once "
            "(strategy.rollingUpdate.maxSurge)",
        )
    return None


def _number(server: TemplateContainer | None, name: str, otherwise: int) -> int:
    text = server.value(name) if server else ""
    return int(text) if text.isdigit() and int(text) else otherwise
