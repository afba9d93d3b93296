"""A training of several processes: how its pods find each other. Pure: values in, dict out, no client.

One process a GPU, one pod a node. The pods are those of an Indexed Job, whose index is the node's rank; a headless
Service gives the pod with index 0 a name before it is ready. Each failed pod fails the attempt: the next attempt
starts all of them anew, from the last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune_contract.stage_protocol import (
    ENV_MASTER_ADDRESS,
    ENV_MASTER_PORT,
    ENV_NODE_RANK,
    ENV_NODES,
    ENV_PROCESSES,
    MASTER_PORT,
    Stage,
)
from finetune_operator.api_group import LABEL_ATTEMPT, LABEL_RUN_UID, LABEL_STAGE
from finetune_operator.child_names import job_name, service_name
from finetune_operator.observed import Run
from finetune_operator.stages import STAGE_BY_NAME

INDEX = "batch.kubernetes.io/job-completion-index"
"""Annotation that Kubernetes puts on a pod of an Indexed Job."""
LOOPBACK = "127.0.0.1"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class TrainingGroup:
    """How many pods, and how many processes in each."""

    nodes: int
    processes: int

    @property
    def spans_nodes(self) -> bool:
        """There is more than one pod: they need an Indexed Job and a Service."""
        return self.nodes > 1


def group_of(run: Run, stage: Stage) -> TrainingGroup | None:
    """The processes of a stage; None when it is one alone."""
    gpu = run.spec.resources.train.gpu
    if gpu is None or not STAGE_BY_NAME[stage].spreads or gpu.nodes * gpu.count == 1:
        return None
    return TrainingGroup(gpu.nodes, gpu.count)


def environment(run: Run, stage: Stage, attempt: int, group: TrainingGroup) -> list[Manifest]:
    """What torchrun, or the stage in its place, must know."""
    master = LOOPBACK
    rank: Manifest = {"name": ENV_NODE_RANK, "value": "0"}
    if group.spans_nodes:
        master = f"{job_name(run.name, run.uid, stage, attempt)}-0.{service_name(run.uid, stage)}"
        path = f"metadata.annotations['{INDEX}']"
        rank = {"name": ENV_NODE_RANK, "valueFrom": {"fieldRef": {"fieldPath": path}}}
    return [
        {"name": ENV_NODES, "value": str(group.nodes)},
        {"name": ENV_PROCESSES, "value": str(group.processes)},
        rank,
        {"name": ENV_MASTER_ADDRESS, "value": master},
        {"name": ENV_MASTER_PORT, "value": str(MASTER_PORT)},
    ]


def service(run: Run, stage: Stage, metadata: Manifest) -> Manifest:
    """The headless Service of all attempts of a stage; an attempt's address holds its Job's name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata | {"name": service_name(run.uid, stage)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL_RUN_UID: run.uid, LABEL_STAGE: stage.value},
            "ports": [
                {"name": "rendezvous", "port": MASTER_PORT, "targetPort": MASTER_PORT, "protocol": "TCP"}
            ],
        },
    }


def spread_over_nodes(run: Run, attempt: int) -> Manifest:
    """An affinity: the pods of an attempt like different nodes."""
    labels = {LABEL_RUN_UID: run.uid, LABEL_ATTEMPT: str(attempt)}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
