"""Kueue, the queue of Jobs, as its release and its chart have it. Brought up only where it is named.

It is handed Jobs alone, and does not serve its API of what waits: an API that does not answer holds up every
namespace that is to be deleted, and this node does not extend its API server.
"""

from __future__ import annotations

from typing import Any

import yaml

from devcluster import go_programs, images
from devcluster.commands import run
from devcluster.kubectl import tools_folder
from devcluster.node import Node
from devcluster.progress import Progress

PART = "kueue"
NAMESPACE = "kueue-system"
IMAGE = "localhost/kueue:1"
_USER = "65532:65532"
_MODULE = "sigs.k8s.io/kueue"
_DEPLOYMENT = "deployment/kueue-controller-manager"
_CERTIFICATE = "secret/kueue-webhook-server-cert"
_CONFIGURATION = """\
apiVersion: config.kueue.x-k8s.io/v1beta2
kind: Configuration
health: {healthProbeBindAddress: ":8081"}
metrics: {bindAddress: ":8443"}
webhook: {port: 9443}
leaderElection: {leaderElect: false}
integrations: {frameworks: [batch/job]}
"""


def up(node: Node, progress: Progress) -> None:
    """Installs it, and returns when it judges Jobs."""
    built = go_programs.ensure(progress, go_programs.KUEUE)
    with progress.step(PART, "install Kueue in the node"):
        images.load_program(
            *(node.instance, node.processes, node.programs, IMAGE, built / "kueue"),
            place="manager",
            user=_USER,
        )
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        objects = yaml.safe_dump_all([namespace, *_manifests(progress)])
        node.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", text_input=objects)
        _start_with_its_certificate(node)


def _start_with_its_certificate(node: Node) -> None:
    """Its first pod makes the certificate, and sees it a minute or three later, when the kubelet mounts it anew and
    the pod happens to look. One that begins with it is ready at once.
    """
    inside = f"--namespace={NAMESPACE}"
    node.kubectl(inside, "wait", "--for=jsonpath={.data.tls\\.crt}", _CERTIFICATE, "--timeout=120s")
    node.kubectl(inside, "rollout", "restart", _DEPLOYMENT)
    node.kubectl(inside, "rollout", "status", _DEPLOYMENT, "--timeout=180s")


def down(node: Node, progress: Progress) -> None:
    """Removes it from a node that goes on. Queues must be gone: Kueue itself lets go of them."""
    with progress.step(PART, "remove Kueue from the node"):
        objects = yaml.safe_dump_all(_manifests(progress))
        node.kubectl("delete", "--ignore-not-found", "--filename=-", text_input=objects)
        node.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")


def _manifests(progress: Progress) -> list[dict[str, Any]]:
    chart = go_programs.module_folder(_MODULE, go_programs.KUEUE, progress) / "charts/kueue"
    helm = [str(tools_folder() / "helm"), "template", "kueue", str(chart), f"--namespace={NAMESPACE}"]
    rendered = run([*helm, "--values=-"], text_input=yaml.safe_dump(_values()))
    return [found for found in yaml.safe_load_all(rendered) if found and found["kind"] != "APIService"]


def _values() -> dict[str, Any]:
    repository, tag = IMAGE.rsplit(":", 1)
    manager = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    }
    gates = [{"name": "VisibilityOnDemand", "enabled": False}]
    return {
        "controllerManager": {"manager": manager, "featureGates": gates},
        "managerConfig": {"controllerManagerConfigYaml": _CONFIGURATION},
    }
