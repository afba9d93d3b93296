"""One Weaviate server: how to reach it, and its client's errors in our words. Must not know what is kept there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import httpx
import weaviate
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.exceptions import (
    AuthenticationFailedError,
    InsufficientPermissionsError,
    UnexpectedStatusCodeError,
    WeaviateBaseError,
    WeaviateConnectionError,
    WeaviateGRPCUnavailableError,
    WeaviateRetryError,
    WeaviateStartUpError,
    WeaviateTimeoutError,
)

from finetune_contract.run_spec import SecretKeyRef
from finetune_contract.secret_text import NOT_SENDABLE, is_sendable
from finetune_trainer.errors import TrainerError

CONNECT_SECONDS = 5
_REFUSED = re.compile("UNAUTHENTICATED|PERMISSION_DENIED")
_OTHER_JSON = (AttributeError, LookupError, TypeError, ValueError)
"""What the client falls over when it connects: it takes any JSON for Weaviate's own."""
_DETAILS = re.compile(r'details = "([^"]+)"')


@dataclass(frozen=True)
class WeaviateServer:
    """An address with a key. Nothing is opened before `client`."""

    place: str
    """Path in the spec, for errors."""
    url: str
    grpc_port: int
    collection: str
    rights: str
    """What the key must allow, in words."""
    rejected: type[TrainerError]
    unavailable: type[TrainerError]
    key_reference: SecretKeyRef | None = None
    api_key: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """Name of the machine, for REST and gRPC."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_secure(self) -> bool:
        """https, and gRPC over TLS."""
        return urlsplit(self.url).scheme == "https"

    @property
    def port(self) -> int:
        """The REST port."""
        return urlsplit(self.url).port or (443 if self.is_secure else 80)

    def check_settings(self, key_variable: str, key_required: bool = True) -> None:
        """Refuse what cannot work before connecting."""
        if fault := _address_fault(self.url):
            raise self.rejected(f"{self.place}.url: {fault}; write it as http://weaviate:8080")
        if self.key_reference is not None and not self.api_key and key_required:
            raise self.rejected(
                f"{self.place}.apiKeySecretRef: the Secret {self.key_reference.name} has no value under "
                f"{self.key_reference.key} (it reaches the stage as {key_variable})"
            )
        if not is_sendable(self.api_key):
            raise self.rejected(
                f"{self.place}.apiKeySecretRef: the key {NOT_SENDABLE}; correct the Secret (it reaches the stage as "
                f"{key_variable})"
            )
        if self.grpc_port == self.port:
            raise self.rejected(
                f"{self.place}.grpcPort: {self.port} is the REST port of {self.url}; gRPC has a port of its own, "
                "50051 unless it was changed"
            )

    @contextmanager
    def client(self) -> Iterator[weaviate.WeaviateClient]:
        """A connection; every error of the client leaves as one of ours.

        The client's own first checks are skipped, because they ask pypi.org whether the client is new.
        """
        try:
            with self._connected() as client:
                yield client
        except WeaviateBaseError as error:
            raise self.translated(error) from error
        except httpx.HTTPError as error:  # the client translates some of its library's errors only
            raise self.unavailable(
                f"{self.place}.url: {self.url} does not answer ({type(error).__name__}); check the address and that "
                "Weaviate runs"
            ) from error

    def _connected(self) -> weaviate.WeaviateClient:
        try:
            return weaviate.connect_to_custom(
                http_host=self.host,
                http_port=self.port,
                http_secure=self.is_secure,
                grpc_host=self.host,
                grpc_port=self.grpc_port,
                grpc_secure=self.is_secure,
                auth_credentials=Auth.api_key(self.api_key) if self.api_key else None,
                additional_config=AdditionalConfig(
                    timeout=Timeout(init=CONNECT_SECONDS, query=20, insert=60)
                ),
                skip_init_checks=True,
            )
        except _OTHER_JSON as error:
            raise self.rejected(
                f"{self.place}.url: {self.url} answers, and not as Weaviate does; correct the address"
            ) from error

    def check_grpc(self) -> None:
        """The client itself would try a wrong port for more than a minute."""
        address = f"{self.host}:{self.grpc_port}"
        if self.is_secure:
            channel = grpc.secure_channel(address, grpc.ssl_channel_credentials())
        else:
            channel = grpc.insecure_channel(address)
        with channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
            except grpc.FutureTimeoutError as error:
                raise self.unavailable(
                    f"{self.place}.grpcPort: nothing speaks gRPC at {address}; correct the port, "
                    "or open it beside the REST port"
                ) from error

    def translated(self, error: WeaviateBaseError) -> TrainerError:
        """One of our errors, with place, fact and remedy."""
        fact = _fact(str(error))
        status = error.status_code if isinstance(error, UnexpectedStatusCodeError) else 0
        refused = isinstance(error, AuthenticationFailedError | InsufficientPermissionsError)
        if refused or status in {401, 403} or _REFUSED.search(str(error)):
            return self.rejected(
                f"{self.place}.apiKeySecretRef: {self.url} refuses the key; correct the Secret, and give its user "
                f"the right to {self.rights} {self.collection}"
            )
        if isinstance(error, WeaviateGRPCUnavailableError):
            return self.unavailable(
                f"{self.place}.grpcPort: {self.host}:{self.grpc_port} does not speak gRPC; correct the port"
            )
        if isinstance(error, WeaviateStartUpError) and "not supported" in fact:
            return self.rejected(f"{self.place}.url: {self.url} is too old ({fact})")
        if isinstance(error, WeaviateConnectionError | WeaviateStartUpError | WeaviateTimeoutError):
            return self.unavailable(
                f"{self.place}.url: {self.url} does not answer ({fact}); check the address and that Weaviate runs"
            )
        if isinstance(error, WeaviateRetryError) or "UNAVAILABLE" in str(error):
            return self.unavailable(
                f"{self.place}.url: {self.url} stopped answering at {self.host}:{self.grpc_port} ({fact}); "
                "bring Weaviate back: what is written stays, and the next try does the rest"
            )
        if 400 <= status < 500 and status != 429:
            return self.rejected(f"{self.place}: {self.url} refused the request ({fact})")
        return self.unavailable(f"{self.place}: {self.url} failed ({fact}); it is tried again")


def _address_fault(url: str) -> str:
    """Why an address cannot be used, without its words; empty when it can."""
    try:
        parts = urlsplit(url)
        if parts.port == 0 or not parts.hostname:
            return "has no host or port"
    except ValueError:
        return "is no address"
    return "has a path, and Weaviate is reached at none" if parts.path.strip("/") else ""


def _fact(message: str) -> str:
    """What the client says, on one line; of gRPC's own long text the details alone."""
    details = _DETAILS.search(message)
    return " ".join((details[1] if details else message).split())[:300]
