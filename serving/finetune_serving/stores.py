"""Reading a model's files from S3 or from a folder. The only file that speaks boto3; its errors end here.

Must not know manifests, digests or where the bytes go.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

import boto3
import botocore.exceptions
from botocore.config import Config

from finetune_contract.secret_text import NOT_SENDABLE, s3_keys
from finetune_serving.errors import (
    PACKAGE_AGAIN,
    AccessDenied,
    FetchError,
    NotFound,
    SizeMismatch,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 5
_MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
_OTHER_REGION = "the bucket is in another region: set AWS_DEFAULT_REGION"
_REMEDIES = {
    "InvalidBucketName": (NotFound, "no bucket can have this name; check MODEL_URI"),
    "PermanentRedirect": (AccessDenied, _OTHER_REGION),
    "AuthorizationHeaderMalformed": (AccessDenied, _OTHER_REGION),
    "RequestTimeTooSkewed": (
        AccessDenied,
        "the clocks here and there differ by minutes: set the clock of the node, or of the store",
    ),
}
"""Refusals by code that no other right would cure."""
_BUCKET = re.compile(r"[a-zA-Z0-9._-]+")


class ModelStore(Protocol):
    """A folder of files, read by name and range."""

    def describe(self, name: str) -> str:
        """Where the file lies, for messages."""

    def read_small(self, name: str) -> bytes:
        """A whole small file.

        Raises:
            FetchError: see finetune_serving.errors.
        """

    def read_range(self, name: str, start: int, length: int, expected_size: int) -> bytes:
        """Exactly `length` bytes from `start`; may be called from several threads.

        Raises:
            SizeMismatch: the file's size is not `expected_size`.
            FetchError: see finetune_serving.errors.
        """


def open_store(uri: str) -> ModelStore:
    """The store behind `s3://bucket/prefix/` or `file:///folder`. Opens no connection.

    Raises:
        NotFound: the address has another form.
    """
    scheme, _, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    if scheme == "s3" and _BUCKET.fullmatch(place):
        return S3Folder(place, path.strip("/"))
    if scheme == "file" and place in ("", "localhost") and slash:
        return LocalFolder(Path(f"/{unquote(path)}"))
    raise NotFound(f"MODEL_URI is {uri!r}; expected s3://BUCKET/PREFIX/ or file:///FOLDER/")


@dataclass(frozen=True)
class LocalFolder:
    """A folder on this machine."""

    folder: Path

    def describe(self, name: str) -> str:
        return str(self.folder / name)

    def read_small(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise self._translated(error, name) from error

    def read_range(self, name: str, start: int, length: int, expected_size: int) -> bytes:
        path = self.folder / name
        try:
            size = path.stat().st_size
            if size != expected_size:
                raise SizeMismatch(f"{path}: expected {expected_size} bytes, found {size}; {PACKAGE_AGAIN}")
            with path.open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise self._translated(error, name) from error

    def _translated(self, error: OSError, name: str) -> FetchError:
        if isinstance(error, PermissionError):
            return AccessDenied(f"{self.describe(name)}: this user may not read it; change its mode or owner")
        if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            return NotFound(f"{self.describe(name)}: no such file; check MODEL_URI")
        return StoreUnavailable(f"{self.describe(name)}: {error.strerror}; try again")


class S3Folder:
    """A prefix in a bucket. Endpoint and credentials come from the usual AWS variables and files."""

    def __init__(self, bucket: str, prefix: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._sleep = sleep
        self._client: S3Client | None = None

    def describe(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(name)}"

    def read_small(self, name: str) -> bytes:
        def read() -> bytes:
            return (
                self._s3()
                .get_object(Bucket=self._bucket, Key=self._key(name))["Body"]
                .read(_MANIFEST_LIMIT_BYTES)
            )

        return self._patiently(name, read)

    def read_range(self, name: str, start: int, length: int, expected_size: int) -> bytes:
        def read() -> bytes:
            answer = self._s3().get_object(
                Bucket=self._bucket, Key=self._key(name), Range=f"bytes={start}-{start + length - 1}"
            )
            size = answer.get("ContentRange", "").rpartition("/")[2]
            if size.isdigit() and int(size) != expected_size:
                raise SizeMismatch(
                    f"{self.describe(name)}: expected {expected_size} bytes as in the manifest, found {size};"
                    f" the object was replaced or not uploaded whole: {PACKAGE_AGAIN}"
                )
            body = answer["Body"].read()
            if len(body) != length:
                raise StoreUnavailable(
                    f"{self.describe(name)}: the answer to a range of {length} bytes ended after {len(body)}; try again"
                )
            return body

        return self._patiently(name, read)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _s3(self) -> S3Client:
        if self._client is None:
            try:
                self._client = self._connected()
            except botocore.exceptions.InvalidRegionError as error:
                raise NotFound(
                    f"s3://{self._bucket}: AWS_DEFAULT_REGION is no region ({error}); write it such as us-east-1"
                ) from error
            except ValueError as error:
                raise NotFound(
                    f"s3://{self._bucket}: AWS_ENDPOINT_URL_S3 is no address ({error}); write it as https://HOST:PORT"
                ) from error
        return self._client

    def _connected(self) -> S3Client:
        keys = s3_keys(os.environ)
        if keys and not keys.are_sendable:
            raise AccessDenied(
                f"s3://{self._bucket}: AWS_ACCESS_KEY_ID or AWS_SESSION_TOKEN {NOT_SENDABLE}; correct the Secret"
            )
        session = boto3.session.Session(*(keys or ()))
        return session.client(
            "s3",
            region_name=session.region_name or "us-east-1",
            config=Config(
                connect_timeout=10,
                read_timeout=60,
                max_pool_connections=16,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
                response_checksum_validation="when_required",
            ),
        )

    def _patiently(self, name: str, read: Callable[[], bytes]) -> bytes:
        """Repeat what may pass by itself, with growing pauses; translate what does not."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return read()
            except StoreUnavailable:
                if attempt == _ATTEMPTS:
                    raise
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                translated = self._translated(error, name)
                if attempt == _ATTEMPTS or not isinstance(translated, StoreUnavailable):
                    raise translated from error
            self._sleep(min(8.0, 0.25 * 2**attempt))
        raise AssertionError("the loop returns or raises")

    def _translated(self, error: Exception, name: str) -> FetchError:
        place = self.describe(name)
        if isinstance(error, botocore.exceptions.ClientError):
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code == "NoSuchBucket":
                return NotFound(
                    f"{place}: there is no bucket {self._bucket!r}; check MODEL_URI and AWS_ENDPOINT_URL_S3"
                )
            if code in _REMEDIES:
                kind, remedy = _REMEDIES[code]
                return kind(f"{place}: the store answered {status} {code}; {remedy}")
            if code == "InvalidRange" or status == 416:
                return SizeMismatch(f"{place}: the object is shorter than the manifest says; {PACKAGE_AGAIN}")
            if status == 404:
                return NotFound(
                    f"{place}: there is no such object; check MODEL_URI. If it is right, {PACKAGE_AGAIN}"
                )
            if status in (400, 401, 403):
                return AccessDenied(
                    f"{place}: the store answered {status} {code}; the credentials need s3:GetObject on this prefix"
                )
            return StoreUnavailable(f"{place}: the store answered {status} {code}; try again")
        if isinstance(
            error, botocore.exceptions.NoCredentialsError | botocore.exceptions.PartialCredentialsError
        ):
            return AccessDenied(
                f"{place}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY from a Secret"
            )
        if isinstance(error, botocore.exceptions.EndpointConnectionError):
            return StoreUnavailable(
                f"{place}: the store does not answer; check AWS_ENDPOINT_URL_S3 and the network"
            )
        return StoreUnavailable(
            f"{place}: {type(error).__name__} while reading; check the store and try again"
        )
