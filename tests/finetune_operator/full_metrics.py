"""Metrics of an operator with a past, so that every metric and every label has been used. Not a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_contract.run_status import FineTuneRunStatus, Phase, PodUse, RolloutPhase, RolloutStatus, Usage
from finetune_contract.schedule_status import ScheduleReason
from finetune_contract.stage_protocol import Stage
from finetune_operator.errors import ClusterRefused
from finetune_operator.metrics import Gauges, Metrics
from finetune_operator.observed import RunKey
from tests.finetune_operator.samples import a_status, an_attempt, at

KEY = RunKey("demo", "blog")


def gauges(**changes: Any) -> Gauges:
    """A leader at rest, with one run that trains."""
    runs: Mapping[tuple[str, Phase], int] = {("demo", Phase.TRAINING): 1}
    chosen: dict[str, Any] = {
        "leader": lambda: True,
        "lease_age_seconds": lambda: 1.5,
        "runs": lambda: runs,
        "schedules": lambda: {("demo", reason.value): 1 for reason in ScheduleReason},
        "longest_waits": lambda: dict.fromkeys(Stage, 0.0),
        "queue_depth": lambda: 2,
        "working": lambda: 1,
        "resyncs": lambda: 3,
        "watch_silent_seconds": lambda: 0.0,
        "watch_event_age_seconds": lambda: 12.0,
        "watch_restarts": lambda: 0,
    }
    return Gauges(**(chosen | changes))


def trained(gpu_seconds: int = 600, lost: int = 0, result: str = "Succeeded") -> FineTuneRunStatus:
    """A training that had a node after a minute, and ended ten minutes later."""
    attempt = an_attempt(
        Stage.TRAIN,
        0,
        result,
        started_at=at(0),
        finished_at=at(660),
        queue_seconds=60,
        pods=[PodUse(name="train-0", since=at(60), seconds=600)],
    )
    return a_status(attempts=[attempt], usage=Usage(gpu_seconds=gpu_seconds, lost_gpu_seconds=lost))


def over() -> FineTuneRunStatus:
    """A run that took an hour."""
    return a_status(phase=Phase.SUCCEEDED, start_time=at(0), completion_time=at(3600))


def rolled_out(phase: RolloutPhase) -> FineTuneRunStatus:
    """A run whose rollout is so far."""
    return a_status(rollout=RolloutStatus(phase=phase))


def full_metrics() -> Metrics:
    """Everything happened once."""
    metrics = Metrics(gauges())
    metrics.pass_ended(0.02, "")
    metrics.pass_ended(1.0, "ClusterUnavailable")
    metrics.refused(ClusterRefused("no"))
    metrics.status_written(KEY, FineTuneRunStatus(), trained())
    metrics.status_written(KEY, FineTuneRunStatus(), trained(result="Evicted", lost=600))
    metrics.status_written(KEY, rolled_out(RolloutPhase.PROGRESSING), rolled_out(RolloutPhase.ROLLED_BACK))
    metrics.status_written(KEY, FineTuneRunStatus(), over())
    return metrics
