"""What the project relies on in the node: images that run restricted, GPUs that are counted, names, addresses."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.access import Access

pytestmark = pytest.mark.on_cluster

Document = dict[str, Any]


@pytest.fixture(scope="module")
def namespace(cluster: Access) -> Iterator[str]:
    """A namespace that enforces the restricted pod security standard."""
    name = f"node-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def pod(image: str, python: str, **resources: str) -> Document:
    """A pod that runs a line of Python as the operator's jobs do: no root, no capabilities, read-only files."""
    restricted = {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "main",
        "image": f"localhost/finetune-{image}:dev",
        "imagePullPolicy": "Never",
        "command": ["python", "-c", python],
        "resources": {"limits": resources},
        "securityContext": restricted,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{uuid.uuid4().hex[:8]}"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


def start(cluster: Access, namespace: str, document: Document) -> str:
    cluster.kubectl("--namespace", namespace, "apply", "--filename=-", text_input=json.dumps(document))
    name: str = document["metadata"]["name"]
    return name


def end_of(cluster: Access, namespace: str, name: str) -> Document:
    """The pod after it has succeeded; one that fails is shown at once."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        text = cluster.kubectl("--namespace", namespace, "get", "pod", name, "--output=json")
        found: Document = json.loads(text)
        if found["status"]["phase"] == "Succeeded":
            return found
        if found["status"]["phase"] == "Failed":
            break
        time.sleep(0.5)
    pytest.fail(f"pod {name} did not succeed: {json.dumps(found['status'], indent=1)}", pytrace=False)


def output_of(cluster: Access, namespace: str, document: Document) -> str:
    name = start(cluster, namespace, document)
    end_of(cluster, namespace, name)
    return cluster.kubectl("--namespace", namespace, "logs", name)


def test_the_trainer_image_loads_torch_and_transformers_without_root_and_without_writing(
    cluster: Access, namespace: str
) -> None:
    line = "import torch, transformers, finetune_trainer, os; print(os.getuid(), finetune_trainer.__file__)"

    printed = output_of(cluster, namespace, pod("trainer", line))

    assert printed.split() == ["65532", "/app/finetune_trainer/__init__.py"]


@pytest.mark.parametrize(
    ("image", "module"),
    [("operator", "finetune_operator"), ("serving", "finetune_serving"), ("django", "finetune_chat")],
)
def test_every_image_holds_this_clones_packages(
    cluster: Access, namespace: str, image: str, module: str
) -> None:
    printed = output_of(cluster, namespace, pod(image, f"import {module}; print({module}.__file__)"))

    assert printed.strip() == f"/app/{module}/__init__.py"


def test_two_pods_that_want_the_only_gpu_run_one_after_the_other(cluster: Access, namespace: str) -> None:
    line = "import time; time.sleep(3)"
    first = start(cluster, namespace, pod("trainer", line, **{"nvidia.com/gpu": "1"}))
    second = start(cluster, namespace, pod("trainer", line, **{"nvidia.com/gpu": "1"}))

    ran = [
        end_of(cluster, namespace, name)["status"]["containerStatuses"][0]["state"]["terminated"]
        for name in (first, second)
    ]
    earlier, later = sorted(ran, key=lambda one: str(one["startedAt"]))

    assert later["startedAt"] >= earlier["finishedAt"]


def test_a_pod_reaches_wordpress_weaviate_and_s3_where_the_host_does(cluster: Access, namespace: str) -> None:
    line = (
        "import sys, urllib.request\n"
        "for url in sys.argv[1:]: print(urllib.request.urlopen(url, timeout=20).status)"
    )
    document = pod("trainer", line)
    document["spec"]["containers"][0]["command"] += [
        f"{cluster.wordpress_url}/wp-json/",
        f"{cluster.weaviate_url}/v1/.well-known/ready",
        f"{cluster.s3_endpoint}/healthz",
    ]

    assert output_of(cluster, namespace, document).split() == ["200", "200", "200"]


def test_a_pod_finds_services_by_name(cluster: Access, namespace: str) -> None:
    line = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"

    assert output_of(cluster, namespace, pod("trainer", line)).strip() == "10.96.0.1"
