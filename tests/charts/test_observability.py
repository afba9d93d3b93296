"""Dashboard, alerts and ServiceMonitor: rendered by the real helm, and held to the metrics that the operator shows."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from prometheus_client.parser import text_string_to_metric_families

from devcluster.kubectl import tools_folder
from finetune_contract.run_status import Phase, RolloutPhase
from finetune_contract.stage_protocol import Stage
from finetune_operator.metrics import FAILURES
from tests.finetune_operator.full_metrics import full_metrics

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/finetune-operator"
ALL = (
    "serviceMonitor.enabled=true",
    "prometheusRule.enabled=true",
    "grafanaDashboard.enabled=true",
)
TARGET_LABELS = {"job", "namespace", "pod", "instance"}
"""What Prometheus adds to each series of a target."""
WORDS = {
    "phase": {phase.value for phase in Phase},
    "stage": {stage.value for stage in Stage},
    "outcome": {phase.value for phase in RolloutPhase} | {"succeeded", "failed"},
    "kind": set(FAILURES),
}
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def render(*settings: str) -> list[dict[str, Any]]:
    chosen = [part for setting in settings for part in ("--set-json", setting)]
    done = subprocess.run(
        [str(tools_folder() / "helm"), "template", "tuner", str(CHART), "--namespace", "ops", *chosen],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def the(documents: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [
        document
        for document in documents
        if document["kind"] == kind and document["metadata"]["name"].endswith(name)
    ]
    return found


def rules(*settings: str) -> list[dict[str, Any]]:
    (group,) = the(render("prometheusRule.enabled=true", *settings), "PrometheusRule")["spec"]["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads((CHART / "dashboards/finetune-operator.json").read_text("utf-8"))
    return board


@cache
def shown() -> dict[str, set[str]]:
    """Labels by series, of a real /metrics."""
    series: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(full_metrics().text().decode()):
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


@cache
def expressions() -> list[tuple[str, str]]:
    """Every PromQL expression with where it is from."""
    alerts = [(rule["alert"], rule["expr"]) for rule in rules()]
    panels = [
        (panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]
    asked = [(entry["name"], entry["definition"]) for entry in dashboard()["templating"]["list"][1:]]
    return [*alerts, *panels, *asked]


def selectors(expression: str) -> list[tuple[str, str]]:
    """Names of series in an expression, each with what stands in its braces."""
    return re.findall(r"\b((?:finetune_operator|process)_\w+)(?:\{([^}]*)\})?", expression)


def test_all_is_off_by_default_and_on_by_one_value_each():
    before = {(document["kind"], document["metadata"]["name"]) for document in render()}
    after = {(document["kind"], document["metadata"]["name"]) for document in render(*ALL)}

    assert after - before == {
        ("Service", "tuner-finetune-operator-metrics"),
        ("ServiceMonitor", "tuner-finetune-operator"),
        ("PrometheusRule", "tuner-finetune-operator"),
        ("ConfigMap", "tuner-finetune-operator-dashboard"),
    }
    assert before <= after


def test_the_service_finds_every_replica_ready_or_not_and_the_monitor_finds_the_service():
    documents = render(*ALL, "httpPort=9090")
    service, monitor = the(documents, "Service"), the(documents, "ServiceMonitor")
    pod = the(documents, "Deployment")["spec"]["template"]

    kubernetes_validate.validate(service, "1.37", strict=True)
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["publishNotReadyAddresses"] is True
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] == pod["spec"]["containers"][0]["ports"][0]["name"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {"port": port["name"], "path": "/metrics", "interval": "30s", "honorLabels": True}


def test_without_a_prometheus_operator_the_service_comes_alone():
    documents = render(
        "metricsService.enabled=true", 'metricsService.annotations={"prometheus.io/scrape":"true"}'
    )

    assert the(documents, "Service")["metadata"]["annotations"] == {"prometheus.io/scrape": "true"}
    assert not [document for document in documents if document["kind"] == "ServiceMonitor"]


def test_labels_by_which_a_prometheus_chooses_reach_monitor_and_rules():
    documents = render(*ALL, 'serviceMonitor.labels={"release":"p"}', 'prometheusRule.labels={"release":"p"}')

    assert the(documents, "ServiceMonitor")["metadata"]["labels"]["release"] == "p"
    assert the(documents, "PrometheusRule")["metadata"]["labels"]["release"] == "p"


def test_the_config_map_holds_the_dashboard_as_it_lies_in_the_chart():
    documents = render(
        *ALL, 'grafanaDashboard.namespace="grafana"', 'grafanaDashboard.annotations={"folder":"M"}'
    )
    found = the(documents, "ConfigMap", "-dashboard")

    kubernetes_validate.validate(found, "1.37", strict=True)
    assert found["metadata"]["namespace"] == "grafana"
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"folder": "M"}
    assert [json.loads(text) for text in found["data"].values()] == [dashboard()]


def test_every_expression_asks_for_metrics_labels_and_words_that_exist():
    for place, expression in expressions():
        assert selectors(expression), place
        for name, braces in selectors(expression):
            assert name in shown(), f"{place}: no metric {name}"
            for label, _, words in MATCHER.findall(braces):
                assert label in shown()[name] | TARGET_LABELS, f"{place}: {name} has no label {label}"
                if label in WORDS:
                    assert set(words.split("|")) <= WORDS[label], f"{place}: {label}={words}"
        known = set().union(*(shown()[name] for name, _ in selectors(expression))) | TARGET_LABELS
        for kept in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {label.strip() for label in kept.split(",")} <= known, place


def test_an_expression_without_braces_is_seen_too():
    assert selectors("max(finetune_operator_leader) + process_cpu_seconds_total{job='a'}") == [
        ("finetune_operator_leader", ""),
        ("process_cpu_seconds_total", "job='a'"),
    ]


def test_each_metric_is_in_the_dashboard_and_explained_in_the_docs():
    asked = " ".join(expression for _, expression in expressions())
    docs = (ROOT / "docs/observability.md").read_text(encoding="utf-8")

    for family in text_string_to_metric_families(full_metrics().text().decode()):
        if family.name.startswith("finetune_operator_"):
            assert family.name in asked, family.name
            told = family.name + ("_total" if family.type == "counter" else "")
            assert f"`{told}`" in docs, told


def test_each_alert_says_what_is_so_what_to_do_and_has_its_line_in_the_docs():
    docs = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    found = rules('prometheusRule.runbookUrl="https://docs.example/observability"')

    assert len(found) >= 6
    for rule in found:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        anchor = rule["annotations"]["runbook_url"].removeprefix("https://docs.example/observability#")
        assert f"### {rule['alert']}\n" in docs
        assert anchor == rule["alert"].lower()
    assert "runbook_url" not in rules()[0]["annotations"]


def test_alerts_look_at_this_release_alone():
    for rule in rules():
        for name, braces in selectors(rule["expr"]):
            matchers = {label: words for label, _, words in MATCHER.findall(braces)}
            assert matchers["job"] == "tuner-finetune-operator-metrics"
            own = {"namespace"} & shown()[name]
            assert own or matchers["namespace"] == "ops", rule["alert"]


def test_limits_of_alerts_are_values():
    text = json.dumps(rules("prometheusRule.gpuWaitSeconds=7200", "prometheusRule.queueDepth=7"))

    assert "> 7200" in text
    assert "[15m])) > 7" in text


def test_panels_do_not_lie_over_each_other():
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        mine = {
            (column, line)
            for column in range(place["x"], place["x"] + place["w"])
            for line in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not mine & taken, panel["title"]
        taken |= mine
