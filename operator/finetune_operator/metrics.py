"""What Prometheus gets: every metric with its words, and the one place that knows the Prometheus client.

No metric has a run's name: a label is a namespace, a stage, or a word of the contract, so their number does not grow
with the runs. What is so now is asked for when somebody looks; what happened is counted when it happens. Counters begin
at 0 with the process, and nothing that happened before counts again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from finetune_contract.run_status import FineTuneRunStatus, Phase
from finetune_contract.stage_protocol import Stage
from finetune_operator.errors import (
    ClusterRefused,
    ClusterUnavailable,
    CrdTooOld,
    FieldConflict,
    InvalidRun,
    OperatorError,
)
from finetune_operator.observed import RunKey
from finetune_operator.queue import FAULT
from finetune_operator.rollout.states import OVER
from finetune_operator.status_news import status_news

PREFIX = "finetune_operator"
CONTENT_TYPE = CONTENT_TYPE_LATEST
MINUTE, HOUR = 60.0, 3600.0
STAGE_BUCKETS = (
    *(10.0, 30.0, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE),
    *(HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 16 * HOUR, 24 * HOUR, 48 * HOUR, 96 * HOUR),
)
"""From what a tiny stage takes to days."""
WAIT_BUCKETS = (1.0, 5.0, *STAGE_BUCKETS)
FAILURES = (
    *(kind.__name__ for kind in (ClusterUnavailable, ClusterRefused, FieldConflict, CrdTooOld, InvalidRun)),
    FAULT,
)
"""By which a look usually fails."""
PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Gauges:
    """What is so now, asked for at each look."""

    leader: Callable[[], bool]
    lease_age_seconds: Callable[[], float]
    runs: Callable[[], Mapping[tuple[str, Phase], int]]
    schedules: Callable[[], Mapping[tuple[str, str], int]]
    longest_waits: Callable[[], Mapping[Stage, float]]
    queue_depth: Callable[[], int]
    working: Callable[[], int]
    resyncs: Callable[[], int]
    watch_silent_seconds: Callable[[], float]
    watch_event_age_seconds: Callable[[], float]
    watch_restarts: Callable[[], int]


class Metrics:
    """All metrics of one process."""

    def __init__(self, gauges: Gauges) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # its author left the annotation out
        self._gauges = gauges
        self._registry = CollectorRegistry()
        self._registry.register(_Now(gauges))
        ProcessCollector(registry=self._registry)
        self._owed: defaultdict[tuple[str, str], int] = defaultdict(int)
        """Seconds that were counted and turned out not to be so, by counter and namespace."""
        self._attempts = self._counter(
            "attempts_ended",
            "Jobs of stages that ended, by what they ended with: Succeeded or a reason.",
            ("namespace", "stage", "result"),
        )
        self._stage_seconds = self._histogram(
            "stage_duration_seconds",
            "Seconds from an attempt's first node to its end.",
            ("stage", "outcome"),
            STAGE_BUCKETS,
        )
        self._wait_seconds = self._histogram(
            "queue_wait_seconds",
            "Seconds that an attempt waited for its first node; told when it gets it.",
            ("stage",),
            WAIT_BUCKETS,
        )
        self._run_seconds = self._histogram(
            "run_duration_seconds",
            "Seconds from a run's first Job to its end, by the phase that it ended in.",
            ("phase",),
            STAGE_BUCKETS,
        )
        self._gpu_seconds = self._counter(
            "gpu_seconds", "Seconds times GPUs that attempts held.", ("namespace",)
        )
        self._lost_gpu_seconds = self._counter(
            "lost_gpu_seconds",
            "The part of them whose work no later attempt went on from. What is gone on from after all is set off "
            "against later losses.",
            ("namespace",),
        )
        self._rollouts = self._counter(
            "rollouts_ended",
            "Rollouts that ended, by the phase that they ended in.",
            ("namespace", "outcome"),
        )
        self._passes = self._counter("passes", "Looks at runs.", ())
        self._failed_passes = self._counter(
            "failed_passes",
            "Looks at runs that did not get on, by class of error; Fault is a fault of the operator.",
            ("kind",),
        )
        for kind in FAILURES:
            self._failed_passes.labels(kind)
        self._pass_seconds = self._histogram(
            "pass_duration_seconds", "Seconds that a look at a run took.", (), PASS_BUCKETS
        )

    def pass_ended(self, seconds: float, failure: str) -> None:
        """A look at a run is over."""
        self._passes.inc()
        self._pass_seconds.observe(seconds)
        if failure:
            self._failed_passes.labels(failure).inc()

    def refused(self, error: OperatorError) -> None:
        """A look at a run did not get on, and only a person can help."""
        self._failed_passes.labels(type(error).__name__).inc()

    def status_written(self, key: RunKey, before: FineTuneRunStatus, after: FineTuneRunStatus) -> None:
        """A status is in the cluster: what it is news of is counted, once."""
        news = status_news(before, after)
        for attempt in news.ended:
            self._attempts.labels(key.namespace, attempt.stage.value, attempt.result).inc()
            if attempt.seconds is not None:
                outcome = "succeeded" if attempt.succeeded else "failed"
                self._stage_seconds.labels(attempt.stage.value, outcome).observe(attempt.seconds)
        for wait in news.waits:
            self._wait_seconds.labels(wait.stage.value).observe(wait.seconds)
        self._add("gpu", self._gpu_seconds, key.namespace, news.gpu_seconds)
        self._add("lost", self._lost_gpu_seconds, key.namespace, news.lost_gpu_seconds)
        if news.run is not None and news.run.seconds is not None:
            self._run_seconds.labels(news.run.phase.value).observe(news.run.seconds)
        if news.rollout is not None:
            self._rollouts.labels(key.namespace, news.rollout.value).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        for namespace in {namespace for namespace, _ in self._gauges.runs()}:
            self._begin_at_zero(namespace)
        return generate_latest(self._registry)

    def _begin_at_zero(self, namespace: str) -> None:
        """Prometheus sees an increase only of what it has seen before: the first rollback must be one."""
        self._gpu_seconds.labels(namespace)
        self._lost_gpu_seconds.labels(namespace)
        for outcome in OVER:
            self._rollouts.labels(namespace, outcome.value)

    def _add(self, name: str, counter: Counter, namespace: str, seconds: int) -> None:
        """A counter never goes back: what turns out to be less is owed, and set off against what comes."""
        if not seconds:
            return
        net = seconds - self._owed.pop((name, namespace), 0)
        if net < 0:
            self._owed[name, namespace] = -net
        counter.labels(namespace).inc(max(0, net))

    def _counter(self, name: str, words: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"{PREFIX}_{name}", words, labels, registry=self._registry)

    def _histogram(
        self, name: str, words: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", words, labels, buckets=buckets, registry=self._registry)


class _Now(Collector):
    """What is so at the moment of a look."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        now = self._gauges
        runs = GaugeMetricFamily(
            f"{PREFIX}_runs", "Runs that are known, ended ones too, by phase.", labels=("namespace", "phase")
        )
        for (namespace, phase), count in now.runs().items():
            runs.add_metric((namespace, phase.value), count)
        yield runs
        schedules = GaugeMetricFamily(
            f"{PREFIX}_schedules",
            "FineTuneSchedules, by the reason of their condition Ready.",
            labels=("namespace", "reason"),
        )
        for (namespace, reason), count in now.schedules().items():
            schedules.add_metric((namespace, reason), count)
        yield schedules
        waits = GaugeMetricFamily(
            f"{PREFIX}_longest_wait_seconds",
            "For how long the attempt that waits longest for its first node has waited; 0 where none waits.",
            labels=("stage",),
        )
        for stage, seconds in now.longest_waits().items():
            waits.add_metric((stage.value,), seconds)
        yield waits
        for name, words, value in (
            ("leader", "1 when this replica holds the Lease and acts.", float(now.leader())),
            ("lease_age_seconds", "Seconds since the Lease was last read.", now.lease_age_seconds()),
            ("queue_depth", "Runs that wait for a look.", float(now.queue_depth())),
            ("working", "Runs that are looked at now.", float(now.working())),
            (
                "watch_silent_seconds",
                "For how long a change is known that no event has told of; 0 when events tell of all.",
                now.watch_silent_seconds(),
            ),
            (
                "watch_event_age_seconds",
                "Seconds since the last event of any kind; grows where nothing happens.",
                now.watch_event_age_seconds(),
            ),
        ):
            yield GaugeMetricFamily(f"{PREFIX}_{name}", words, value=value)
        for name, words, count in (
            ("resyncs", "How often everything was listed.", now.resyncs()),
            ("watch_restarts", "How often the watch was begun anew for its silence.", now.watch_restarts()),
        ):
            yield CounterMetricFamily(f"{PREFIX}_{name}", words, value=count)
