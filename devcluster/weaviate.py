"""Weaviate, the real server, with API keys. Knows no other part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devcluster import credentials
from devcluster.http_client import answers
from devcluster.paths import Instance
from devcluster.processes import Processes
from devcluster.progress import Progress

PART = "weaviate"
HTTP_PORT, GRPC_PORT = 8080, 50051


@dataclass(frozen=True)
class Weaviate:
    """One instance's server.

    Args:
        programs: the folder of the built Go programs.
    """

    instance: Instance
    processes: Processes
    programs: Path

    @property
    def url(self) -> str:
        return addresses(self.instance)[0]

    @property
    def grpc_address(self) -> str:
        return addresses(self.instance)[1]


def addresses(instance: Instance) -> tuple[str, str]:
    """For HTTP, and for gRPC."""
    return f"http://{instance.node_ip}:{HTTP_PORT}", f"{instance.node_ip}:{GRPC_PORT}"


def up(server: Weaviate, progress: Progress) -> None:
    """Starts the server unless it runs."""
    if server.processes.is_running(PART):
        progress.say(PART, f"already up at {server.url}")
        return
    with progress.step(PART, f"start Weaviate at {server.url}, gRPC at {server.grpc_address}"):
        listen = ["--scheme=http", "--host=0.0.0.0", f"--port={HTTP_PORT}"]
        timeouts = ["--read-timeout=600s", "--write-timeout=600s"]
        argv = [str(server.programs / "weaviate-server"), *listen, *timeouts]
        server.processes.start(PART, argv, env=_settings(server))
        ready = server.url + "/v1/.well-known/ready"
        server.processes.wait_until(PART, lambda: answers(ready), "Weaviate was ready")


def down(server: Weaviate) -> None:
    server.processes.stop(PART, timeout_seconds=30)


def _settings(server: Weaviate) -> dict[str, str]:
    secret = credentials.load(server.instance)
    return {
        "PERSISTENCE_DATA_PATH": str(server.instance.state / "weaviate"),
        "DEFAULT_VECTORIZER_MODULE": "none",
        "ENABLE_MODULES": "",
        "GRPC_PORT": str(GRPC_PORT),
        "LOG_LEVEL": "warning",
        # Who may come in: the operator's jobs write, the Django site only reads.
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
        "AUTHENTICATION_APIKEY_ENABLED": "true",
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": f"{secret.weaviate_api_key},{secret.weaviate_reader_api_key}",
        "AUTHENTICATION_APIKEY_USERS": "trainer,reader",
        "AUTHORIZATION_ADMINLIST_ENABLED": "true",
        "AUTHORIZATION_ADMINLIST_USERS": "trainer",
        "AUTHORIZATION_ADMINLIST_READONLY_USERS": "reader",
        # A cluster of one that never looks for others.
        "CLUSTER_HOSTNAME": "weaviate",
        "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        "CLUSTER_BIND_ADDR": "127.0.0.1",
        "CLUSTER_IN_LOCALHOST": "true",
        "CLUSTER_GOSSIP_BIND_PORT": "7946",
        "CLUSTER_DATA_BIND_PORT": "7947",
        "CLUSTER_BASIC_AUTH_USERNAME": "cluster",
        "CLUSTER_BASIC_AUTH_PASSWORD": secret.weaviate_api_key,
        "RAFT_JOIN": "weaviate",
        "RAFT_BOOTSTRAP_EXPECT": "1",
        "RAFT_ENABLE_ONE_NODE_RECOVERY": "true",
        "RAFT_TIMEOUTS_MULTIPLIER": "1",
        # A small machine, and nothing that speaks to the outside.
        "DISABLE_TELEMETRY": "true",
        "GO_PROFILING_DISABLE": "true",
        "PROMETHEUS_MONITORING_ENABLED": "false",
        "LIMIT_RESOURCES": "false",
        "GOMAXPROCS": "2",
    }
