"""The untuned base model as a servable artifact, and its three env entries in the chat's Deployment.

The entries are applied as the operator applies them, under its field manager: the first tuned model then replaces
them, and a rollback brings them back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from demo.cluster import Cluster
from demo.errors import DemoError
from demo.manifests import NAMESPACE
from devcluster import base_model
from devcluster.paths import cache_folder
from devcluster.progress import Progress
from finetune_contract import VERSION
from finetune_contract.artifacts import MANIFEST_NAME, Manifest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART = "untuned"
PREFIX = "untuned"


@dataclass(frozen=True)
class ServableModel:
    """A model folder in S3 and the digest that pins it."""

    uri: str
    manifest_sha256: str

    @property
    def model_id(self) -> str:
        """MODEL_ID as the operator writes it."""
        return f"sha256:{self.manifest_sha256}"


def package(progress: Progress) -> Path:
    """The packaged base model in the cache: GGUF and manifest; made at the first call."""
    source = base_model.folder(progress)
    folder = cache_folder() / f"untuned-{VERSION}-{source.name}" / PREFIX
    if not (folder / MANIFEST_NAME).is_file():
        with progress.step(PART, "convert the untuned model to GGUF (once, cached)"):
            from finetune_trainer.packaging.package import package_base
            from finetune_trainer.stores.local_folder import LocalFolder

            package_base(source, LocalFolder(folder.parent), PREFIX)
    return folder


def s3_client(environment: Mapping[str, str]) -> S3Client:
    """The demo's store, with the rights to write."""
    return boto3.client(
        "s3",
        endpoint_url=environment["S3_ENDPOINT"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )


def upload(folder: Path, environment: Mapping[str, str], progress: Progress) -> ServableModel:
    """Put the packaged model into S3, manifest last; nothing is sent when it is there."""
    s3 = s3_client(environment)
    bucket = environment["S3_BUCKET"]
    content = (folder / MANIFEST_NAME).read_bytes()
    manifest = Manifest.model_validate_json(content)
    found = s3.list_objects_v2(Bucket=bucket, Prefix=f"{PREFIX}/{MANIFEST_NAME}").get("Contents", [])
    there = found and s3.get_object(Bucket=bucket, Key=f"{PREFIX}/{MANIFEST_NAME}")["Body"].read() == content
    if not there:
        with progress.step(PART, f"upload the untuned model to s3://{bucket}/{PREFIX}/"):
            for entry in manifest.files:
                s3.upload_file(str(folder / entry.path), bucket, f"{PREFIX}/{entry.path}")
            s3.put_object(Bucket=bucket, Key=f"{PREFIX}/{MANIFEST_NAME}", Body=content)
    return ServableModel(f"s3://{bucket}/{PREFIX}/", manifest.sha256())


def serve(cluster: Cluster, deployment: str, model: ServableModel) -> None:
    """Point a Deployment that has no model yet to the untuned one; a Deployment with a model is left alone."""
    found = cluster.get("deployment", deployment, "-n", NAMESPACE)
    if found is None:
        raise DemoError(
            f"deployment/{deployment} is not in namespace {NAMESPACE}; apply the quickstart's chat.yaml"
        )
    pod = found["spec"]["template"]["spec"]
    containers = pod.get("initContainers", []) + pod["containers"]
    names = {entry["name"] for container in containers for entry in container.get("env", [])}
    if "MODEL_ID" not in names:
        point(cluster, deployment, model)


def point(cluster: Cluster, deployment: str, model: ServableModel) -> None:
    """Make the Deployment serve this model, whatever it served."""
    pod = (cluster.get("deployment", deployment, "-n", NAMESPACE) or {})["spec"]["template"]["spec"]
    server_list = (
        "containers" if any(c["name"] == "model-server" for c in pod["containers"]) else "initContainers"
    )
    patch_pod: dict[str, list[dict[str, object]]] = {
        "initContainers": [
            {
                "name": "model-fetch",
                "env": [
                    {"name": "MODEL_URI", "value": model.uri},
                    {"name": "MODEL_MANIFEST_SHA256", "value": model.manifest_sha256},
                ],
            }
        ]
    }
    patch_pod.setdefault(server_list, []).append(
        {"name": "model-server", "env": [{"name": "MODEL_ID", "value": model.model_id}]}
    )
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment, "namespace": NAMESPACE},
        "spec": {"template": {"spec": patch_pod}},
    }
    cluster.kubectl(
        "apply", "--server-side", "--field-manager=finetune-operator", "-f", "-", given=json.dumps(patch)
    )
