"""An S3 bucket as a store. The only file of this package that knows boto3; its errors end here."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    InvalidRegionError,
    NoCredentialsError,
    ParamValidationError,
)
from s3transfer.exceptions import S3DownloadFailedError, S3ValidationError

from finetune_contract.run_spec import S3StoreSpec
from finetune_contract.secret_text import NOT_SENDABLE, S3Keys, s3_keys
from finetune_trainer.errors import ArtifactDamaged, StoreRejected, StoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_OTHER_REGION = "the bucket is in another region; correct {field}.region"
_REJECTIONS = {
    "NoSuchBucket": "the bucket does not exist; create it or correct {field}.bucket",
    "AccessDenied": "access denied; give the key of {field}.credentialsSecretRef {rights}",
    "InvalidAccessKeyId": "the access key is unknown; correct the Secret of {field}.credentialsSecretRef",
    "SignatureDoesNotMatch": "the secret key is wrong; correct the Secret of {field}.credentialsSecretRef",
    "403": "access denied; correct the Secret of {field}.credentialsSecretRef",
    "404": "not found; create the bucket of {field}.bucket, or run the stage that makes this object",
    "NoSuchKey": "there is no such object",
    "InvalidBucketName": "no bucket can have this name; correct {field}.bucket",
    "PermanentRedirect": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
    "RequestTimeTooSkewed": "the clocks here and there differ by minutes; set the clock of the node, or of the store",
}
_MISSING = frozenset({"404", "NoSuchKey"})
STORE_FIELD = "spec.store.s3"
STORE_RIGHTS = "read, write, list and delete"
_TRANSFER = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=32 << 20, max_concurrency=4)


def s3_client(
    endpoint: str | None, region: str, keys: tuple[str, str] | None = None, field: str = STORE_FIELD
) -> S3Client:
    """A client with retries, path addressing for foreign servers, and SHA-256 checksums on upload.

    `keys` are an access key and its secret; without them the environment or the pod's cloud identity has them.

    Raises:
        StoreRejected: `field` of the spec names a region, an address or a key that none can be.
    """
    known = S3Keys(*keys) if keys else s3_keys(os.environ)
    if known and not known.are_sendable:
        raise StoreRejected(
            f"{field}.credentialsSecretRef: the access key id, or the session token, {NOT_SENDABLE}; correct the Secret"
        )
    try:
        return boto3.session.Session(*(known or ())).client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path" if endpoint else "auto"},
                retries={"max_attempts": 5, "mode": "standard"},
                connect_timeout=5,
                read_timeout=60,
            ),
        )
    except InvalidRegionError as error:
        raise StoreRejected(
            f"{field}.region: {region!r} is no name of a region; write it such as us-east-1"
        ) from error
    except ValueError as error:
        raise StoreRejected(
            f"{field}.endpoint: {endpoint!r} is no address for S3; write it as https://HOST:PORT, with no underscore "
            "in the host"
        ) from error


@contextmanager
def s3_errors(place: str, field: str = STORE_FIELD, rights: str = STORE_RIGHTS) -> Iterator[None]:
    """Turn boto3's errors into the store's two, with the place named; `field` of the spec is where to mend it."""
    try:
        yield
    except NoCredentialsError as error:
        raise StoreRejected(
            f"{place}: no credentials; set {field}.credentialsSecretRef or give the pod a cloud identity"
        ) from error
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _REJECTIONS:
            remedy = _REJECTIONS[code].format(field=field, rights=rights)
            kind = ArtifactDamaged if code in _MISSING else StoreRejected
            raise kind(f"{place}: {remedy} ({code})") from error
        if 400 <= status < 500 and code not in {"SlowDown", "RequestTimeout", "429"}:
            raise StoreRejected(f"{place}: the store answered {status} {code}") from error
        raise StoreUnavailable(f"{place}: the store answered {status} {code}; it is tried again") from error
    except ParamValidationError as error:
        raise StoreRejected(
            f"{place}: no bucket or object can have this name; correct it ({error})"
        ) from error
    except (BotoCoreError, Boto3Error, S3DownloadFailedError, S3ValidationError) as error:
        raise StoreUnavailable(f"{place}: no answer ({type(error).__name__}: {error})") from error


class S3Store:
    """Keys are objects below `bucket/prefix`."""

    def __init__(
        self, client: S3Client, bucket: str, prefix: str, field: str = STORE_FIELD, rights: str = STORE_RIGHTS
    ) -> None:
        """`field` of the spec, and what is done there, lead the remedies."""
        self.client = client
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self._field = field
        self._rights = rights

    @classmethod
    def from_spec(cls, spec: S3StoreSpec) -> S3Store:
        """Credentials come from the environment (AWS_ACCESS_KEY_ID, ...) or from the pod's cloud identity."""
        return cls(s3_client(spec.endpoint, spec.region), spec.bucket, spec.prefix)

    @classmethod
    def to_read(cls, spec: S3StoreSpec, field: str, keys: tuple[str, str] | None) -> S3Store:
        """Files of others, named by `field` of the spec; `keys` come before those of the environment."""
        client = s3_client(spec.endpoint, spec.region, keys, field)
        return cls(client, spec.bucket, spec.prefix, field, rights="read and list")

    def check(self) -> None:
        key = f".write-check-{os.getpid()}"
        with self._errors(f"{self._field}: s3://{self.bucket}"):
            self._see_bucket()
        self.write(key, b"ok")
        if self.read(key) != b"ok":
            raise StoreUnavailable(f"{self.uri(key)}: was written and cannot be read; check the store")
        self.delete([key])

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._full(key)}"

    def read(self, key: str) -> bytes | None:
        with self._errors(self.uri(key)):
            try:
                return self.client.get_object(Bucket=self.bucket, Key=self._full(key))["Body"].read()
            except self.client.exceptions.NoSuchKey:
                return None

    def write(self, key: str, content: bytes) -> None:
        checksum = b64encode(hashlib.sha256(content).digest()).decode()
        with self._errors(self.uri(key)):
            self.client.put_object(
                Bucket=self.bucket, Key=self._full(key), Body=content, ChecksumSHA256=checksum
            )

    def upload(self, key: str, path: Path) -> None:
        with self._errors(self.uri(key)):
            self.client.upload_file(
                str(path),
                self.bucket,
                self._full(key),
                ExtraArgs={"ChecksumAlgorithm": "SHA256"},
                Config=_TRANSFER,
            )

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with self._errors(self.uri(key)):
            self.client.download_file(self.bucket, self._full(key), str(partial), Config=_TRANSFER)
        partial.replace(path)

    def list(self, prefix: str) -> list[str]:
        start = len(self._full(""))
        keys: list[str] = []
        with self._errors(self.uri(prefix)):
            for page in self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._full(prefix)
            ):
                keys += [entry["Key"][start:] for entry in page.get("Contents", [])]
        return sorted(keys)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._errors(self.uri(key)):
                self.client.delete_object(Bucket=self.bucket, Key=self._full(key))

    def _see_bucket(self) -> None:
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except ClientError:
            # the answer to HEAD has no body that names the cause; what is listed has one
            self.client.list_objects_v2(Bucket=self.bucket, Prefix=self._full(""), MaxKeys=1)
            raise

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _errors(self, place: str) -> AbstractContextManager[None]:
        return s3_errors(place, self._field, self._rights)
