"""The objects that the demo needs beside examples/quickstart: namespace, Secrets, Services to the parts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMESPACE = "demo"
SITE_NODE_PORT = 30800


def namespace() -> dict[str, Any]:
    """The namespace, with restricted Pod Security enforced: what runs here runs in a strict cluster as well."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }


def secrets(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Credentials under the names that the quickstart's FineTuneRun and Deployment refer to."""
    return [
        _secret(
            "wordpress",
            {"username": environment["WORDPRESS_USER"], "password": environment["WORDPRESS_APP_PASSWORD"]},
        ),
        _secret("weaviate", {"apiKey": environment["WEAVIATE_API_KEY"]}),
        _secret(
            "s3",
            {
                "accessKeyId": environment["AWS_ACCESS_KEY_ID"],
                "secretAccessKey": environment["AWS_SECRET_ACCESS_KEY"],
            },
        ),
    ]


def services(parts_ip: str) -> list[dict[str, Any]]:
    """Names inside the cluster for the parts outside of it."""
    ports = {
        "wordpress": {"http": 8091},
        "weaviate": {"http": 8080, "grpc": 50051},
        "s3": {"http": 8333},
    }
    return [manifest for name, wanted in ports.items() for manifest in _service(name, wanted, parts_ip)]


def _secret(name: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": dict(values),
    }


def _service(name: str, ports: Mapping[str, int], address: str) -> list[dict[str, Any]]:
    listed = [{"name": port, "port": number, "protocol": "TCP"} for port, number in ports.items()]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"ports": listed},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-parts",
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": listed,
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
    ]
