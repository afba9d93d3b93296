"""etcd and an API server on this machine alone, without nodes and controllers, for the benchmark beside it.

The programs are those of devcluster. Who asked for what, and when, stands in the API server's audit log.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from devcluster import go_programs, pki
from devcluster.progress import Progress

PART = "cluster"
NAMESPACE = "scale"
OPERATOR, SIMULATOR = "finetune-operator", "job-simulator"
START_SECONDS = 120.0
STOP_SECONDS = 10.0

Json = dict[str, Any]

AUDIT_POLICY = f"""apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  users: [{OPERATOR}]
- level: Metadata
  users: [{SIMULATOR}]
  verbs: [patch]
  resources: [{{group: batch, resources: [jobs/status]}}]
- level: None
"""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@dataclass
class ControlPlane:
    """A running API server with its store."""

    folder: Path
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    def kubeconfig(self, user: str) -> Path:
        """A file with which that user is let in."""
        path = self.folder / f"{user}.kubeconfig"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(pki.kubeconfig(self.folder / "pki", user, self.server))
        return path

    def tls(self, user: str) -> ssl.SSLContext:
        """The same for a client of our own."""
        keys = self.folder / "pki"
        context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
        context.load_cert_chain(str(keys / f"{user}.crt"), str(keys / f"{user}.key"))
        return context

    def stop(self) -> None:
        """End both programs; what is stored stays in the folder."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start(folder: Path, crds: Sequence[Path], kubelet_port: int, progress: Progress) -> ControlPlane:
    """A cluster with the CRDs, one namespace, and a node whose kubelet is ours."""
    programs = go_programs.ensure(progress, go_programs.FAST_NODE)
    keys = folder / "pki"
    pki.make_all(
        keys,
        (
            *pki.node_certificates("127.0.0.1", "10.96.0.1"),
            pki.Certificate(OPERATOR, f"/CN={OPERATOR}"),
            pki.Certificate(SIMULATOR, f"/O=system:masters/CN={SIMULATOR}"),
        ),
    )
    policy = folder / "audit-policy.yaml"
    policy.write_text(AUDIT_POLICY)
    plane = ControlPlane(folder, free_port())
    client, peer = free_port(), free_port()
    try:
        with progress.step(PART, "start etcd and the API server"):
            _spawn(plane, programs, "etcd", _etcd(folder, client, peer))
            _spawn(plane, programs, "kube-apiserver", _apiserver(plane, client, policy))
            with httpx.Client(base_url=plane.server, verify=plane.tls(SIMULATOR), timeout=30) as api:
                _wait_until_ready(api, plane)
                _furnish(api, crds, kubelet_port)
    except BaseException:
        plane.stop()
        raise
    return plane


def _spawn(plane: ControlPlane, programs: Path, part: str, arguments: Sequence[str]) -> None:
    log = (plane.folder / f"{part}.log").open("ab")
    argv = [str(programs / "node"), part, *arguments]
    plane.processes.append(subprocess.Popen(argv, stdout=log, stderr=log, env=dict(os.environ)))


def _etcd(folder: Path, client: int, peer: int) -> list[str]:
    urls, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    return [
        "--name=default",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={urls}",
        f"--advertise-client-urls={urls}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--quota-backend-bytes=8589934592",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver(plane: ControlPlane, etcd_port: int, policy: Path) -> list[str]:
    keys = plane.folder / "pki"
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={plane.port}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
        f"--client-ca-file={keys / 'ca.crt'}",
        f"--tls-cert-file={keys / 'apiserver.crt'}",
        f"--tls-private-key-file={keys / 'apiserver.key'}",
        f"--kubelet-client-certificate={keys / 'apiserver-to-kubelet.crt'}",
        f"--kubelet-client-key={keys / 'apiserver-to-kubelet.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={keys / 'service-account.pub'}",
        f"--service-account-signing-key-file={keys / 'service-account.key'}",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={plane.audit_log}",
        "--audit-log-maxsize=100000",
        "--endpoint-reconciler-type=none",
    ]


def _wait_until_ready(api: httpx.Client, plane: ControlPlane) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for process in plane.processes:
            if process.poll() is not None:
                raise SystemExit(f"a program of the cluster ended: its log is in {plane.folder}")
        try:
            if api.get("/readyz").text == "ok":
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise SystemExit(
        f"the API server was not ready within {START_SECONDS:.0f} s: its log is in {plane.folder}"
    )


def _furnish(api: httpx.Client, crds: Sequence[Path], kubelet_port: int) -> None:
    """What must be there before the first run."""
    apply = {"Content-Type": "application/apply-patch+yaml"}
    for path in crds:
        name = f"{path.stem}.finetune-operator.io"
        reply = api.patch(
            f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}",
            params={"fieldManager": "benchmark", "force": "true"},
            headers=apply,
            content=path.read_bytes(),
        )
        reply.raise_for_status()
    _post(api, "/api/v1/namespaces", {"kind": "Namespace", "metadata": {"name": NAMESPACE}})
    _post(
        api,
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "kind": "ClusterRoleBinding",
            "metadata": {"name": OPERATOR},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": OPERATOR}],
        },
    )
    _post(api, "/api/v1/nodes", {"kind": "Node", "metadata": {"name": "node"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
    }
    merge = {"Content-Type": "application/merge-patch+json"}
    api.patch(
        "/api/v1/nodes/node/status", headers=merge, content=json.dumps({"status": status})
    ).raise_for_status()
    deadline = time.monotonic() + START_SECONDS
    while (
        api.get(f"/apis/finetune-operator.io/v1alpha1/namespaces/{NAMESPACE}/finetuneruns").status_code != 200
    ):
        if time.monotonic() > deadline:
            raise SystemExit("the FineTuneRun resource was never served")
        time.sleep(0.2)


def _post(api: httpx.Client, path: str, body: Json) -> None:
    reply = api.post(path, json=body)
    if reply.status_code >= 400:
        raise SystemExit(f"POST {path}: {reply.status_code} {reply.text[:300]}")
