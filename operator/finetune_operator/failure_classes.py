"""The one table of failures: which class a reason is, whose budget it costs, and how long to wait. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from finetune_contract.run_spec import RetriesSpec
from finetune_contract.run_status import FailureClass, Reason

FIRST_BACKOFF_SECONDS = 10.0
LONGEST_BACKOFF_SECONDS = 300.0
PREEMPTION_BACKOFF_SECONDS = 5.0


class Budget(StrEnum):
    """What a failure costs; the value is the field of `spec.policy.retries`."""

    NONE = "none"
    """Never tried again."""
    FREE = "free"
    """Costs nothing: the user, or a queue, asked for it."""
    INFRASTRUCTURE = "infrastructure"
    PREEMPTION = "preemption"
    EVICTION = "eviction"
    NODE_LOSS = "nodeLoss"
    IMAGE_PULL = "imagePull"
    OUT_OF_MEMORY = "outOfMemory"


@dataclass(frozen=True)
class FailureRule:
    """One row: what kind of failure it is and what it costs."""

    failure_class: FailureClass
    budget: Budget = Budget.NONE


_DATA = FailureRule(FailureClass.DATA)
_CONFIG = FailureRule(FailureClass.CONFIG)
_SERVER = FailureRule(FailureClass.INFRASTRUCTURE, Budget.INFRASTRUCTURE)

FAILURES: Mapping[Reason, FailureRule] = {
    # what the user gave
    Reason.DATA_REJECTED: _DATA,
    Reason.DIVERGED: _CONFIG,
    Reason.SOURCE_REJECTED: _CONFIG,
    Reason.STORE_REJECTED: _CONFIG,
    Reason.KNOWLEDGE_BASE_REJECTED: _CONFIG,
    Reason.BASE_MODEL_REJECTED: _CONFIG,
    Reason.INVALID_SPEC: _CONFIG,
    Reason.SCRATCH_FULL: _CONFIG,
    Reason.SECRET_NOT_FOUND: FailureRule(FailureClass.CONFIG, Budget.INFRASTRUCTURE),
    # memory
    Reason.HOST_OUT_OF_MEMORY: FailureRule(FailureClass.HOST_OUT_OF_MEMORY),
    Reason.CUDA_OUT_OF_MEMORY: FailureRule(FailureClass.CUDA_OUT_OF_MEMORY, Budget.OUT_OF_MEMORY),
    # what Kubernetes took away
    Reason.PREEMPTED: FailureRule(FailureClass.PREEMPTED, Budget.PREEMPTION),
    Reason.EVICTED: FailureRule(FailureClass.EVICTED, Budget.EVICTION),
    Reason.NODE_LOST: FailureRule(FailureClass.NODE_LOST, Budget.NODE_LOSS),
    # what may be better next time
    Reason.SOURCE_UNAVAILABLE: _SERVER,
    Reason.STORE_UNAVAILABLE: _SERVER,
    Reason.KNOWLEDGE_BASE_UNAVAILABLE: _SERVER,
    Reason.INFRASTRUCTURE: _SERVER,
    Reason.GPU_IDLE: _SERVER,
    Reason.IMAGE_PULL_FAILED: FailureRule(FailureClass.IMAGE_PULL, Budget.IMAGE_PULL),
    # limits
    Reason.UNSCHEDULABLE: FailureRule(FailureClass.UNSCHEDULABLE),
    Reason.DEADLINE_EXCEEDED: FailureRule(FailureClass.DEADLINE),
    Reason.BUDGET_EXCEEDED: FailureRule(FailureClass.BUDGET),
    # others
    Reason.INTERNAL_ERROR: FailureRule(FailureClass.INTERNAL),
    Reason.SUSPENDED: FailureRule(FailureClass.USER, Budget.FREE),
    Reason.CANCELLED: FailureRule(FailureClass.USER),
}
"""Every reason that an attempt may end with."""

_UNKNOWN = FailureRule(FailureClass.INTERNAL)
TAKEN_AWAY = frozenset({Budget.PREEMPTION, Budget.EVICTION, Budget.NODE_LOSS})
"""Budgets that pods are charged to which a Job replaces by itself."""

_TAKERS: Mapping[str, Reason] = {
    "PreemptionByScheduler": Reason.PREEMPTED,
    "EvictionByEvictionAPI": Reason.EVICTED,
    "TerminationByKubelet": Reason.EVICTED,
    "DeletionByTaintManager": Reason.NODE_LOST,
    "DeletionByDeviceTaintManager": Reason.NODE_LOST,
    "DeletionByPodGC": Reason.NODE_LOST,
}
"""Reasons of a pod's DisruptionTarget condition (k8s.io/api/core/v1)."""


def rule_of(reason: str) -> FailureRule:
    """The row of a reason; what is not in the table is a fault of ours and never tried again."""
    try:
        return FAILURES.get(Reason(reason), _UNKNOWN)
    except ValueError:
        return _UNKNOWN


def budget_of(reason: str) -> Budget:
    """The budget that a failure with this reason is charged to."""
    return rule_of(reason).budget


def class_of(reason: str) -> FailureClass:
    """What kind of failure a reason is."""
    return rule_of(reason).failure_class


def taker(disruption: str) -> Reason:
    """Who took a pod away, by the words of its DisruptionTarget, `<reason>: <message>`."""
    return _TAKERS.get(disruption.partition(":")[0].strip(), Reason.PREEMPTED)


def allowed(budget: Budget, retries: RetriesSpec) -> int | None:
    """How many failures a budget covers; None when there is no limit."""
    match budget:
        case Budget.NONE:
            return 0
        case Budget.FREE:
            return None
        case Budget.INFRASTRUCTURE:
            return retries.infrastructure
        case Budget.PREEMPTION:
            return retries.preemption
        case Budget.EVICTION:
            return retries.eviction
        case Budget.NODE_LOSS:
            return retries.node_loss
        case Budget.IMAGE_PULL:
            return retries.image_pull
        case Budget.OUT_OF_MEMORY:
            return retries.out_of_memory


def backoff_seconds(budget: Budget, failures: int) -> float:
    """Wait before the next attempt, after so many failures of one budget."""
    if budget in (Budget.INFRASTRUCTURE, Budget.IMAGE_PULL):
        return min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** max(0, failures - 1))
    return PREEMPTION_BACKOFF_SECONDS if budget in {*TAKEN_AWAY, Budget.OUT_OF_MEMORY} else 0.0
