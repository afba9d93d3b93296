"""What Prometheus gets: counted once, never back, and no more series however many runs there are."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from finetune_contract.run_status import FineTuneRunStatus, Phase, RolloutPhase
from finetune_contract.stage_protocol import Stage
from finetune_operator.census import Census
from finetune_operator.errors import FieldConflict
from finetune_operator.metrics import Metrics
from finetune_operator.observed import RunKey
from tests.finetune_operator.full_metrics import KEY, full_metrics, gauges, over, rolled_out, trained
from tests.finetune_operator.samples import NOON, a_status, an_attempt

NONE = FineTuneRunStatus()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One sample of what is shown; None when it is not there."""
    found = [
        sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if sample.name == f"finetune_operator_{name}" and sample.labels == labels
    ]
    return found[0] if found else None


def number_of_series(metrics: Metrics) -> int:
    return sum(len(family.samples) for family in text_string_to_metric_families(metrics.text().decode()))


def test_an_attempt_that_ended_counts_once_however_often_its_status_is_written():
    metrics = Metrics(gauges())
    running = a_status(attempts=[an_attempt(Stage.TRAIN)])

    metrics.status_written(KEY, running, trained())
    metrics.status_written(KEY, trained(), trained())

    succeeded = {"namespace": "demo", "stage": "train", "result": "Succeeded"}
    assert value(metrics, "attempts_ended_total", **succeeded) == 1
    assert value(metrics, "stage_duration_seconds_sum", stage="train", outcome="succeeded") == 600
    assert value(metrics, "stage_duration_seconds_count", stage="train", outcome="succeeded") == 1
    assert value(metrics, "queue_wait_seconds_sum", stage="train") == 60
    assert value(metrics, "queue_wait_seconds_count", stage="train") == 1


def test_a_run_that_ended_counts_with_how_long_it_took():
    metrics = Metrics(gauges())

    metrics.status_written(KEY, trained(), over())
    metrics.status_written(KEY, over(), over())

    assert value(metrics, "run_duration_seconds_sum", phase="Succeeded") == 3600
    assert value(metrics, "run_duration_seconds_count", phase="Succeeded") == 1


def test_what_a_status_said_before_the_start_does_not_count_anew():
    metrics = Metrics(gauges())

    metrics.status_written(KEY, trained(), trained().model_copy(update={"phase": Phase.PACKAGING}))

    assert value(metrics, "gpu_seconds_total", namespace="demo") == 0
    assert b'result="Succeeded"' not in metrics.text()


def test_gpu_seconds_grow_by_what_each_write_adds():
    metrics = Metrics(gauges())

    for before, after in ((0, 60), (60, 120), (120, 600)):
        metrics.status_written(KEY, trained(before), trained(after))

    assert value(metrics, "gpu_seconds_total", namespace="demo") == 600


def test_a_loss_that_was_none_is_set_off_against_the_next_one_in_its_namespace():
    metrics = Metrics(gauges())
    shown = []

    for place, before, after in ((KEY, 0, 600), (KEY, 600, 100), (RunKey("demo", "shop"), 0, 700)):
        metrics.status_written(place, trained(lost=before), trained(lost=after))
        shown.append(value(metrics, "lost_gpu_seconds_total", namespace="demo"))

    assert shown == [600, 600, 800]


@pytest.mark.parametrize(
    ("before", "after", "counted"),
    [
        (RolloutPhase.VERIFYING, RolloutPhase.SUCCEEDED, {"Succeeded"}),
        (RolloutPhase.ROLLING_BACK, RolloutPhase.ROLLED_BACK, {"RolledBack"}),
        (RolloutPhase.ROLLED_BACK, RolloutPhase.ROLLED_BACK, set()),
        (RolloutPhase.PREFLIGHT, RolloutPhase.PROGRESSING, set()),
    ],
)
def test_a_rollout_counts_when_it_ends(before, after, counted):
    metrics = Metrics(gauges())

    metrics.status_written(KEY, rolled_out(before), rolled_out(after))

    outcomes = ("Succeeded", "RolledBack", "RollbackFailed", "Superseded")
    shown = {
        word: value(metrics, "rollouts_ended_total", namespace="demo", outcome=word) for word in outcomes
    }
    assert shown == {word: float(word in counted) for word in outcomes}


def test_rollouts_and_errors_are_shown_as_0_before_the_first_so_that_it_is_an_increase():
    metrics = Metrics(gauges())

    assert value(metrics, "rollouts_ended_total", namespace="demo", outcome="RolledBack") == 0
    assert value(metrics, "failed_passes_total", kind="Fault") == 0


def test_passes_are_counted_by_what_they_failed_by():
    metrics = Metrics(gauges())

    metrics.pass_ended(0.02, "")
    metrics.pass_ended(2.0, "ClusterUnavailable")
    metrics.refused(FieldConflict("no", "argocd", "env"))

    assert value(metrics, "passes_total") == 2
    assert value(metrics, "failed_passes_total", kind="ClusterUnavailable") == 1
    assert value(metrics, "failed_passes_total", kind="FieldConflict") == 1
    assert value(metrics, "pass_duration_seconds_bucket", le="0.025") == 1
    assert value(metrics, "pass_duration_seconds_count") == 2


def test_what_is_so_now_is_asked_for_at_each_look():
    depth = [4]
    metrics = Metrics(gauges(queue_depth=lambda: depth[0], leader=lambda: False))

    assert value(metrics, "queue_depth") == 4
    depth[0] = 0
    assert value(metrics, "queue_depth") == 0
    assert value(metrics, "leader") == 0
    assert value(metrics, "resyncs_total") == 3


def test_five_thousand_runs_give_no_more_series_than_one():
    census = Census()
    metrics = Metrics(gauges(runs=census.by_phase, longest_waits=lambda: census.longest_waits(NOON)))

    def live(number: int) -> int:
        key = RunKey("demo", str(number))
        census.seen(key, {"metadata": {}, "status": {"phase": "Training"}})
        metrics.status_written(key, NONE, trained())
        return number_of_series(metrics)

    first = live(0)
    for number in range(1, 5_000):
        census.seen(RunKey("demo", str(number)), {"metadata": {}, "status": {"phase": "Training"}})
        metrics.status_written(RunKey("demo", str(number)), NONE, trained())

    assert number_of_series(metrics) == first
    assert value(metrics, "runs", namespace="demo", phase="Training") == 5_000


def test_every_metric_has_words_and_a_name_that_tells_its_kind():
    families = list(text_string_to_metric_families(full_metrics().text().decode()))

    for family in families:
        assert family.documentation, family.name
    ours = {family.name: family for family in families if family.name.startswith("finetune_operator_")}
    assert len(ours) > 15
    for name, family in ours.items():
        if family.type == "counter":
            assert {sample.name for sample in family.samples} == {f"{name}_total"}
        if family.type == "histogram":
            assert name.endswith("_seconds")


def test_no_metric_bears_the_name_of_a_run():
    known = {"namespace", "phase", "stage", "result", "outcome", "kind", "reason", "le"}
    for family in text_string_to_metric_families(full_metrics().text().decode()):
        for sample in family.samples:
            assert set(sample.labels) <= known, sample
