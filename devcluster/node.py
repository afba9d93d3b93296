"""Kubernetes on one node: control plane, containerd, kubelet, proxy, policies, name server and a GPU in name only.

Everything runs inside the instance's namespaces (namespaces.py), so upstream's default paths hold and nothing has to be
cleaned up on the host. Knows no part outside Kubernetes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from devcluster import images, pki
from devcluster.commands import run
from devcluster.errors import CommandFailed, DevclusterError
from devcluster.kubectl import Kubectl
from devcluster.paths import PACKAGE, Instance
from devcluster.processes import Processes
from devcluster.progress import Progress

PART = "node"
GPU_RESOURCE = "nvidia.com/gpu"
BRIDGE = "cni0"
POD_NETWORK, SERVICE_NETWORK = "10.244.0.0/16", "10.96.0.0/16"
API_SERVICE_IP, DNS_SERVICE_IP = "10.96.0.1", "10.96.0.10"
NODE_NAME = "node"

CONTROL_PLANE = ("etcd", "apiserver", "controller-manager", "scheduler")
NODE_AGENTS = ("containerd", "kubelet", "proxy", "network-policies", "gpu")
POLICY_QUEUE = "100"
"""Number of the netfilter queue in which the first packet of a connection waits for its verdict."""

_FIRST_PACKETS = ("--match", "conntrack", "--ctstate", "NEW")
_VOLUME_PLUGINS = "/var/lib/kubelet/volume-plugins"


@dataclass(frozen=True)
class Node:
    """One instance's Kubernetes.

    Args:
        processes: programs inside the instance's namespaces.
        programs: the folder of the built Go programs.
    """

    instance: Instance
    processes: Processes
    programs: Path

    @property
    def server(self) -> str:
        return f"https://{self.instance.node_ip}:6443"

    @property
    def pki(self) -> Path:
        return self.instance.state / "pki"

    @property
    def configuration(self) -> Path:
        return self.instance.state / "configuration"

    def is_up(self) -> bool:
        return all(self.processes.is_running(name) for name in (*CONTROL_PLANE, *NODE_AGENTS))

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.instance.kubeconfig, self.instance.state / "kubectl-cache")


def up(node: Node, progress: Progress) -> None:
    """Starts what does not run yet, and returns when the node is Ready and names resolve."""
    files = _configuration_files(node)
    started_as, wanted = node.instance.run / "node.digest", _digest(node, files)
    as_wanted = started_as.exists() and started_as.read_text() == wanted
    if as_wanted and node.is_up() and _is_ready(node):
        progress.say(PART, f"already up at {node.server}")
        return
    if not as_wanted and any(node.processes.is_running(name) for name in (*CONTROL_PLANE, *NODE_AGENTS)):
        with progress.step(PART, "end the programs that run with an older configuration; pods go on running"):
            down(node)
    _write_configuration(node, files)
    started_as.write_text(wanted)
    with progress.step(PART, "start etcd and the API server"):
        _start(node, "etcd", _etcd(node))
        _start(node, "apiserver", _apiserver(node))
        _start_containerd(node)
        node.processes.wait_until(
            "apiserver", lambda: _api_answers(node), "the API answered", timeout_seconds=120
        )
    with progress.step(
        PART, "start controllers, scheduler, kubelet and proxy; wait for the node to be Ready"
    ):
        _start(node, "controller-manager", _controller_manager(node))
        _start(node, "scheduler", _scheduler(node))
        images.load_node_images(node.instance, node.processes, node.programs)
        _start(node, "kubelet", _kubelet(node))
        node.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(PACKAGE / "coredns.yaml"))
        _start(
            node, "proxy", [*_program(node, "kube-proxy"), f"--config={node.configuration / 'proxy.yaml'}"]
        )
        _start_policies(node, progress)
        _start(node, "gpu", [*_program(node, "gpu-device-plugin"), f"--resource={GPU_RESOURCE}", "--count=1"])
        node.processes.wait_until(
            "kubelet", lambda: _is_ready(node), "the node was Ready", timeout_seconds=120
        )
    with progress.step(PART, "wait for the name server"):
        node.kubectl("--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s")


def down(node: Node) -> None:
    """Lets the parts end in order, so that what is stored is whole; containers end with the namespaces."""
    for name in (
        "gpu",
        "network-policies",
        "proxy",
        "kubelet",
        "scheduler",
        "controller-manager",
        "apiserver",
        "etcd",
        "containerd",
    ):
        # The API server would wait for clients that watch; everything it knows is in etcd.
        node.processes.stop(name, timeout_seconds=2 if name == "apiserver" else 10)


def _start(node: Node, name: str, argv: list[str]) -> None:
    if not node.processes.is_running(name):
        node.processes.start(name, argv, env={"PATH": f"{node.programs}:/usr/sbin:/usr/bin:/sbin:/bin"})


def _program(node: Node, part: str) -> list[str]:
    return [str(node.programs / "node"), part]


def _etcd(node: Node) -> list[str]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        *_program(node, "etcd"),
        "--name=default",
        f"--data-dir={node.instance.state / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver(node: Node) -> list[str]:
    keys = node.pki
    return [
        *_program(node, "kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={node.instance.node_ip}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={keys / 'ca.crt'}",
        f"--tls-cert-file={keys / 'apiserver.crt'}",
        f"--tls-private-key-file={keys / 'apiserver.key'}",
        f"--kubelet-client-certificate={keys / 'apiserver-to-kubelet.crt'}",
        f"--kubelet-client-key={keys / 'apiserver-to-kubelet.key'}",
        f"--kubelet-certificate-authority={keys / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={keys / 'service-account.pub'}",
        f"--service-account-signing-key-file={keys / 'service-account.key'}",
        f"--requestheader-client-ca-file={keys / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={keys / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={keys / 'front-proxy-client.key'}",
    ]


def _own_kubeconfig(node: Node, user: str) -> list[str]:
    """A part that serves and calls the API: one file for calling, authenticating and authorizing."""
    path = node.configuration / f"{user}.kubeconfig"
    return [
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        f"--tls-cert-file={node.pki / f'{user}.crt'}",
        f"--tls-private-key-file={node.pki / f'{user}.key'}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]


def _controller_manager(node: Node) -> list[str]:
    keys = node.pki
    return [
        *_program(node, "kube-controller-manager"),
        *_own_kubeconfig(node, "controller-manager"),
        f"--client-ca-file={keys / 'ca.crt'}",
        f"--requestheader-client-ca-file={keys / 'front-proxy-ca.crt'}",
        f"--service-account-private-key-file={keys / 'service-account.key'}",
        f"--root-ca-file={keys / 'ca.crt'}",
        f"--cluster-signing-cert-file={keys / 'ca.crt'}",
        f"--cluster-signing-key-file={keys / 'ca.key'}",
        "--use-service-account-credentials=true",
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={POD_NETWORK}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--flex-volume-plugin-dir={_VOLUME_PLUGINS}",
    ]


def _scheduler(node: Node) -> list[str]:
    return [*_program(node, "kube-scheduler"), *_own_kubeconfig(node, "scheduler")]


def _kubelet(node: Node) -> list[str]:
    return [
        *_program(node, "kubelet"),
        f"--config={node.configuration / 'kubelet.yaml'}",
        f"--kubeconfig={node.configuration / 'kubelet.kubeconfig'}",
        "--root-dir=/var/lib/kubelet",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={node.instance.node_ip}",
    ]


def _start_containerd(node: Node) -> None:
    if node.processes.is_running("containerd"):
        return
    program = str(node.programs / "containerd")
    _start(node, "containerd", [program, "--config", str(node.configuration / "containerd.toml")])
    node.processes.wait_until("containerd", lambda: _containerd_answers(node), "containerd answered")


def _start_policies(node: Node, progress: Progress) -> None:
    """Has each connection that pods open judged by the NetworkPolicies, to each other and to the node's own programs.

    What the node itself opens passes: kubelets probe pods whatever a policy says.
    """
    arguments = [f"--kubeconfig={node.instance.kubeconfig}", f"--node={NODE_NAME}", f"--queue={POLICY_QUEUE}"]
    _start(node, "network-policies", [*_program(node, "network-policies"), *arguments])
    for chain in (["FORWARD"], ["INPUT", "--in-interface", BRIDGE]):
        rule = [*chain, *_FIRST_PACKETS, "--jump", "NFQUEUE", "--queue-bypass", "--queue-num", POLICY_QUEUE]
        iptables = [*node.processes.entering(), "iptables", "--wait", "--table", "mangle"]
        try:
            run([*iptables, "--check", *rule])
        except CommandFailed:
            try:
                run([*iptables, "--append", *rule])
            except CommandFailed as error:
                progress.say(
                    PART, f"NetworkPolicies are not enforced, this kernel queues no packets: {error}"
                )
                return


def _configuration_files(node: Node) -> dict[str, str]:
    """One file a part, by its place in the configuration folder; the same every time."""
    return {
        "base-runtime-spec.json": images.base_runtime_spec(node.programs),
        "containerd.toml": _containerd_configuration(node.configuration),
        "cni/10-pods.conflist": _CNI_CONFIGURATION,
        "resolv.conf": "nameserver 127.0.0.1\n",
        "kubelet.yaml": _kubelet_configuration(node),
        "proxy.yaml": _proxy_configuration(node),
    }


def _digest(node: Node, files: dict[str, str]) -> str:
    """Changes when a running node would have to be started anew: another program or another configuration."""
    return hashlib.sha256(json.dumps([str(node.programs), files]).encode()).hexdigest()


def _write_configuration(node: Node, files: dict[str, str]) -> None:
    """Certificates, kubeconfigs and the configuration files."""
    pki.make_all(node.pki, pki.node_certificates(node.instance.node_ip, API_SERVICE_IP))
    node.configuration.mkdir(parents=True, exist_ok=True)
    for user in ("admin", "controller-manager", "scheduler", "proxy", "kubelet"):
        path = node.instance.kubeconfig if user == "admin" else node.configuration / f"{user}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(pki.kubeconfig(node.pki, user, node.server))
    for name, text in files.items():
        path = node.configuration / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def _containerd_configuration(folder: Path) -> str:
    # restrict_oom_score_adj: lowering it needs CAP_SYS_RESOURCE, which root lacks on some machines.
    runtime = "plugins.'io.containerd.cri.v1.runtime'"
    return f"""version = 4
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{images.PAUSE}"

[{runtime}]
restrict_oom_score_adj = true
[{runtime}.containerd]
default_runtime_name = "runc"
[{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{folder / "base-runtime-spec.json"}"
[{runtime}.containerd.runtimes.runc.options]
SystemdCgroup = false
[{runtime}.cni]
bin_dirs = ["{_cni_programs()}"]
conf_dir = "{folder / "cni"}"
"""


_CNI_CONFIGURATION = json.dumps(
    {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.244.0.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/cni-addresses",
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    },
    indent=1,
)


def _kubelet_configuration(node: Node) -> str:
    # oomScoreAdj 0 for the same reason as in containerd's configuration. failCgroupV1: hosts with version 1 still work.
    return f"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: "{node.pki / "ca.crt"}"}}
authorization: {{mode: Webhook}}
tlsCertFile: "{node.pki / "kubelet.crt"}"
tlsPrivateKeyFile: "{node.pki / "kubelet.key"}"
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /{node.instance.cgroup}
failCgroupV1: false
oomScoreAdj: 0
failSwapOn: false
clusterDNS: ["{DNS_SERVICE_IP}"]
clusterDomain: cluster.local
resolvConf: "{node.configuration / "resolv.conf"}"
volumePluginDir: {_VOLUME_PLUGINS}
serializeImagePulls: false
shutdownGracePeriod: 0s
evictionHard: {{memory.available: 200Mi, nodefs.available: 1Gi, imagefs.available: 1Gi, nodefs.inodesFree: "1%"}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
imageMinimumGCAge: 24h
"""


def _proxy_configuration(node: Node) -> str:
    # Connection tracking limits are the whole machine's: 0 leaves them alone.
    return f"""apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: "{node.configuration / "proxy.kubeconfig"}"}}
mode: iptables
clusterCIDR: {POD_NETWORK}
hostnameOverride: {NODE_NAME}
oomScoreAdj: 0
bindAddress: 0.0.0.0
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
"""


def _cni_programs() -> str:
    for folder in ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"):
        if Path(folder, "bridge").exists():
            return folder
    raise DevclusterError("the CNI programs are missing: apt-get install containernetworking-plugins")


def _containerd_answers(node: Node) -> bool:
    try:
        run([*node.processes.entering(), str(node.programs / "ctr"), "version"], timeout_seconds=10)
        return True
    except CommandFailed:
        return False


def _api_answers(node: Node) -> bool:
    try:
        return node.kubectl("get", "--raw", "/readyz") == "ok"
    except CommandFailed:
        return False


def _is_ready(node: Node) -> bool:
    """Ready, and the GPU is counted."""
    try:
        status = json.loads(node.kubectl("get", "node", NODE_NAME, "--output=json"))["status"]
    except CommandFailed:
        return False
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
    return ready and status.get("allocatable", {}).get(GPU_RESOURCE) == "1"
