"""What the stages may reach and who may reach them, by the rules of NetworkPolicy, read as a plugin reads them.

The rules that are left out: named ports, and peers by namespace.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.kubectl import tools_folder
from finetune_contract.stage_protocol import Stage

CHART = Path(__file__).parents[2] / "charts/finetune-operator"
STORE, WEB, NAMES = ("10.0.0.5", 9000), ("93.184.215.14", 443), ("10.96.0.10", 53)
TO_STORE = [{"to": [{"ipBlock": {"cidr": "10.0.0.5/32"}}], "ports": [{"port": 9000}]}]
Labels = dict[str, str]
Json = dict[str, Any]


def rendered(**values: Any) -> subprocess.CompletedProcess[str]:
    settings = [
        part for name, value in values.items() for part in ("--set-json", f"{name}={json.dumps(value)}")
    ]
    command = [str(tools_folder() / "helm"), "template", "tuner", str(CHART), "--namespace=ops", *settings]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def policies(policy: Json | None = None, **watch: Any) -> list[Json]:
    """The policies about stages."""
    values: Json = {"stageNetworkPolicy": policy or {}}
    done = rendered(**values, **({"watch": watch} if watch else {}))
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found and found["kind"] == "NetworkPolicy"]


def selects(selector: Json, labels: Labels) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for wish in selector.get("matchExpressions", []):
        there = labels.get(wish["key"])
        holds = {
            "Exists": there is not None,
            "NotIn": there not in wish.get("values", []),
            "In": there in wish.get("values", []),
        }[wish["operator"]]
        if not holds:
            return False
    return True


def fits(rule: Json, side: str, peer: Labels | str, port: int) -> bool:
    """Whether a rule speaks of this peer (labels of a pod, or an address) and port."""
    ports = [entry["port"] for entry in rule.get("ports", [])]
    if ports and port not in ports:
        return False
    peers = rule.get(side)
    if not peers:
        return True
    for entry in peers:
        block = entry.get("ipBlock")
        if (
            block
            and isinstance(peer, str)
            and ipaddress.ip_address(peer) in ipaddress.ip_network(block["cidr"])
        ):
            return True
        if "podSelector" in entry and isinstance(peer, dict) and selects(entry["podSelector"], peer):
            return True
    return False


def allowed(found: list[Json], direction: str, me: Labels, peer: Labels | str, port: int) -> bool:
    """Policies add up; a pod that none selects for a direction is free in it."""
    mine = [
        policy["spec"]
        for policy in found
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], me)
    ]
    side, rules = ("to", "egress") if direction == "Egress" else ("from", "ingress")
    return not mine or any(fits(rule, side, peer, port) for spec in mine for rule in spec.get(rules, []))


def pod_of(stage: Stage) -> Labels:
    return {"finetune-operator.io/run": "blog", "finetune-operator.io/stage": stage.value}


OTHER_POD = {"app": "shop"}


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.PACKAGE, Stage.EVALUATE])
def test_a_stage_after_the_dataset_reaches_the_store_and_names_and_nothing_else(stage: Stage) -> None:
    found = policies({"egress": TO_STORE})

    assert allowed(found, "Egress", pod_of(stage), *STORE)
    assert allowed(found, "Egress", pod_of(stage), *NAMES)
    assert not allowed(found, "Egress", pod_of(stage), *WEB)
    assert not allowed(found, "Egress", pod_of(stage), "10.0.0.5", 22)
    assert not allowed(found, "Egress", pod_of(stage), OTHER_POD, 8080)


def test_the_dataset_stage_reaches_the_site_and_the_web() -> None:
    found = policies({"egress": TO_STORE})

    assert allowed(found, "Egress", pod_of(Stage.DATASET), *WEB)
    assert allowed(found, "Egress", pod_of(Stage.DATASET), OTHER_POD, 8080)


@pytest.mark.parametrize("stage", list(Stage))
def test_no_pod_may_open_a_connection_to_a_stage(stage: Stage) -> None:
    assert not allowed(policies(), "Ingress", pod_of(stage), OTHER_POD, 29400)
    assert not allowed(policies(), "Ingress", pod_of(stage), "10.1.2.3", 29400)


def test_the_pods_of_a_training_reach_each_other_both_ways() -> None:
    found = policies({"egress": TO_STORE})
    train = pod_of(Stage.TRAIN)

    assert allowed(found, "Egress", train, train, 29400)
    assert allowed(found, "Ingress", train, train, 29400)
    assert not allowed(found, "Ingress", pod_of(Stage.PACKAGE), train, 29400)


def test_other_pods_of_the_namespace_are_left_alone() -> None:
    found = policies({"egress": TO_STORE})

    assert allowed(found, "Egress", OTHER_POD, *WEB)
    assert allowed(found, "Ingress", OTHER_POD, "10.1.2.3", 80)


def test_without_a_store_no_stage_is_kept_from_anything() -> None:
    assert allowed(policies(), "Egress", pod_of(Stage.TRAIN), *WEB)


def test_the_fence_can_be_switched_off() -> None:
    assert policies({"enabled": False, "egress": TO_STORE}) == []


def test_each_watched_namespace_has_its_own() -> None:
    found = policies({"egress": TO_STORE}, namespaces=["a", "b"])

    assert {policy["metadata"]["namespace"] for policy in found} == {"a", "b"}
    assert len(found) == 6


def test_with_all_namespaces_those_of_the_runs_are_named() -> None:
    named = policies({"egress": TO_STORE, "namespaces": ["a"]}, allNamespaces=True)
    unnamed = rendered(stageNetworkPolicy={"egress": TO_STORE}, watch={"allNamespaces": True})
    needless = rendered(stageNetworkPolicy={"namespaces": ["a"]})

    assert {policy["metadata"]["namespace"] for policy in named} == {"a"}
    assert "stageNetworkPolicy.namespaces" in unnamed.stderr
    assert "watch.allNamespaces only" in needless.stderr
