"""What opens a WordPress: an application password or a token, and a second password for a proxy in front of the site.

Only this file sees the values; messages name the Secret, never what is in it.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import requests

from finetune_contract.run_spec import WordPressSource
from finetune_contract.secret_text import NOT_SENDABLE, is_sendable, without_margins
from finetune_contract.stage_protocol import (
    front_proxy_password_env,
    front_proxy_username_env,
    wordpress_password_env,
    wordpress_token_env,
    wordpress_username_env,
)
from finetune_trainer.errors import SourceRejected

logger = logging.getLogger(__name__)

Authorize = Callable[[requests.PreparedRequest], requests.PreparedRequest]


@dataclass(frozen=True)
class Credentials:
    """One header that opens something."""

    spec_field: str
    """Where the spec names the Secret, such as `credentialsSecretRef`."""
    secret: str
    """Name of the Secret."""
    header: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class SignIn:
    """None where the spec asks for none, or a laptop has none."""

    site: Credentials | None = None
    proxy: Credentials | None = None

    def authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Every header; as an `auth` of requests it also keeps a password of ~/.netrc away."""
        return _with_headers(request, self.site, self.proxy)

    def authorize_for_proxy(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """For the home page: what opens the proxy, and nothing for WordPress."""
        return _with_headers(request, self.proxy)


def read_sign_in(
    source: str,
    spec: WordPressSource,
    environment: Mapping[str, str],
    place: str,
    required: bool,
) -> SignIn:
    """The credentials that the spec names, out of the environment.

    Raises:
        SourceRejected: they are not there although `required`, or only in part, or cannot be sent.
    """

    def find(where: str, secret: str, keys: str, names: tuple[str, ...]) -> tuple[str, ...] | None:
        values = tuple(without_margins(environment.get(name, "")) for name in names)
        if all(values):
            return values
        if required or any(values):
            raise SourceRejected(
                f"{place}.{where}: the Secret {secret} must have {keys} "
                f"(to reach the stage as {' and '.join(names)})"
            )
        logger.info("WordPress is read without %s: %s is not set", where, " and ".join(names))
        return None

    site = proxy = None
    pair_of_keys = "the keys username and password, neither empty"
    if spec.credentials_secret_ref is not None:
        where, secret = "credentialsSecretRef", spec.credentials_secret_ref.name
        names = (wordpress_username_env(source), wordpress_password_env(source))
        if pair := find(where, secret, pair_of_keys, names):
            site = Credentials(where, secret, "Authorization", _basic(*pair))
    elif spec.token_secret_ref is not None:
        where, secret = "tokenSecretRef", spec.token_secret_ref.name
        keys = f"the key {spec.token_secret_ref.key}, not empty"
        if token := find(where, secret, keys, (wordpress_token_env(source),)):
            if not is_sendable(token[0]):
                raise SourceRejected(
                    f"{place}.{where}: the token of the Secret {secret} {NOT_SENDABLE}; correct it"
                )
            site = Credentials(where, secret, "Authorization", f"Bearer {token[0]}")
    if spec.front_proxy is not None:
        where, secret = "frontProxy.credentialsSecretRef", spec.front_proxy.credentials_secret_ref.name
        names = (front_proxy_username_env(source), front_proxy_password_env(source))
        if pair := find(where, secret, pair_of_keys, names):
            proxy = Credentials(where, secret, spec.front_proxy.header, _basic(*pair))
    return SignIn(site, proxy)


def _with_headers(
    request: requests.PreparedRequest, *credentials: Credentials | None
) -> requests.PreparedRequest:
    for one in credentials:
        if one is not None:
            request.headers[one.header] = one.value
    return request


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
