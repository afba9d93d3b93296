"""The chart's fences around the stages and the operator, where policies are enforced: pods with their labels open
connections."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.access import Access
from devcluster.kubectl import tools_folder
from finetune_contract.run_spec import RolloutSpec
from finetune_contract.stage_protocol import MASTER_PORT, Stage

pytestmark = pytest.mark.on_cluster

CHART = Path(__file__).parents[2] / "charts/finetune-operator"
STORE_PORT = 9000
EFFECTIVE_SECONDS = 30.0
"""A change of policies takes a moment."""
TRY = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reached(host, port):
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True
places = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(places)) as pool:
    print(json.dumps(dict(zip(places, pool.map(lambda place: reached(*place), places.values())))))
"""
LISTEN = (
    "import http.server as h; h.ThreadingHTTPServer(('', {port}), h.BaseHTTPRequestHandler).serve_forever()"
)
LISTENERS = {
    "store": STORE_PORT,
    "site": STORE_PORT,
    "chat": RolloutSpec.model_fields["serving_port"].default,
    "other-node": MASTER_PORT,
}
"""Pods by name, and the port on which each answers; other-node is the second pod of a training."""
SERVICES = {"Service of chat": "chat", "Service of site": "site"}
"""Each answers on a port of its own, 80, and leads to the port of its pod: that one is judged."""
OUTSIDE = {"store", "site", "chat", "API server", "name service", *SERVICES}
NEEDED = {"store", "name service"}
REACHES = {
    "dataset": OUTSIDE,
    "train": NEEDED | {"other-node"},
    "package": NEEDED,
    "evaluate": NEEDED,
    "neighbour": OUTSIDE,
    "operator": {"chat", "Service of chat", "API server", "name service"},
}
"""Who opens connections, and to what it may."""


@dataclass(frozen=True)
class Fence:
    """A namespace with the chart's policies, and pods of each stage in it."""

    cluster: Access
    namespace: str
    places: dict[str, tuple[str, int]] = field(default_factory=dict)

    def kubectl(self, *words: str, text_input: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *words, text_input=text_input)

    def apply(self, objects: list[dict[str, Any]]) -> None:
        everything = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "--filename=-", text_input=json.dumps(everything))

    def reached_by(self, pod: str) -> set[str]:
        """The names of the places that a pod can open a connection to."""
        text = self.kubectl("exec", pod, "--", "python", "-c", TRY, json.dumps(self.places))
        return {name for name, reached in json.loads(text).items() if reached}


def a_pod(name: str, labels: dict[str, str], port: int | None = None) -> dict[str, Any]:
    line = LISTEN.format(port=port) if port else "import time; time.sleep(3600)"
    container = {
        "name": "main",
        "image": "localhost/finetune-operator:dev",
        "imagePullPolicy": "Never",
        "command": ["python", "-c", line],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }


def a_service(pod: str) -> dict[str, Any]:
    spec = {"selector": {"app": pod}, "ports": [{"port": 80, "targetPort": LISTENERS[pod]}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": pod}, "spec": spec}


def of_stage(stage: Stage) -> dict[str, str]:
    return {"finetune-operator.io/stage": stage.value}


def policies(namespace: str, store: str) -> list[dict[str, Any]]:
    """Those of the chart, with the store named by its address."""
    way_out = [{"to": [{"ipBlock": {"cidr": f"{store}/32"}}], "ports": [{"port": STORE_PORT}]}]
    command = [str(tools_folder() / "helm"), "template", "tuner", str(CHART), f"--namespace={namespace}"]
    settings = ["--set-json", f"stageNetworkPolicy.egress={json.dumps(way_out)}"]
    settings += ["--set", "networkPolicy.enabled=true"]
    done = subprocess.run([*command, *settings], capture_output=True, text=True, check=True, timeout=60)
    return [found for found in yaml.safe_load_all(done.stdout) if found and found["kind"] == "NetworkPolicy"]


@pytest.fixture(scope="module")
def fence(cluster: Access) -> Iterator[Fence]:
    name = f"fence-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    made = Fence(cluster, name)
    operator = {"app.kubernetes.io/name": "finetune-operator", "app.kubernetes.io/instance": "tuner"}
    callers = [a_pod(stage.value, of_stage(stage)) for stage in Stage]
    callers += [a_pod("neighbour", {}), a_pod("operator", operator)]
    listeners = [
        a_pod(pod, of_stage(Stage.TRAIN) if pod == "other-node" else {"app": pod}, port)
        for pod, port in LISTENERS.items()
    ]
    made.apply([*callers, *listeners, *(a_service(pod) for pod in SERVICES.values())])
    made.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
    for pod, port in LISTENERS.items():
        address = made.kubectl("get", "pod", pod, "--output=jsonpath={.status.podIP}")
        made.places[pod] = (address, port)
    for place, pod in SERVICES.items():
        made.places[place] = (made.kubectl("get", "service", pod, "--output=jsonpath={.spec.clusterIP}"), 80)
    made.places["API server"] = (cluster.node_ip, 6443)
    made.places["name service"] = ("kube-dns.kube-system.svc.cluster.local", 53)
    yield made
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def reached_in_the_end(fence: Fence, wanted: dict[str, set[str]]) -> dict[str, set[str]]:
    """Who reaches what; policies and Services become effective a moment after the API server has them."""
    deadline = time.monotonic() + EFFECTIVE_SECONDS
    while (found := {pod: fence.reached_by(pod) for pod in REACHES}) != wanted:
        if time.monotonic() > deadline:
            break
    return found


def test_without_a_policy_everybody_reaches_everything(fence: Fence) -> None:
    everything = {pod: set(fence.places) for pod in REACHES}

    assert reached_in_the_end(fence, everything) == everything


def test_everybody_reaches_what_it_needs_and_nobody_reaches_a_stage(fence: Fence) -> None:
    fence.apply(policies(fence.namespace, fence.places["store"][0]))

    assert reached_in_the_end(fence, REACHES) == REACHES
