"""The secrets of one instance: made once, kept in its state folder, readable by the owner only."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, fields, replace

from devcluster.paths import Instance


@dataclass(frozen=True, repr=False)
class Credentials:
    """`repr` is left out on purpose: an instance of this class may end up in a traceback."""

    wordpress_admin_password: str
    wordpress_application_password: str
    """Of the user `trainer`; empty until WordPress has been installed, because WordPress makes it."""
    weaviate_api_key: str
    weaviate_reader_api_key: str
    s3_access_key: str
    s3_secret_key: str


def load(instance: Instance) -> Credentials:
    """The instance's secrets; makes them at the first call."""
    path = instance.state / "credentials.json"
    try:
        stored: dict[str, str] = json.loads(path.read_text())
        return Credentials(**{field.name: stored[field.name] for field in fields(Credentials)})
    except FileNotFoundError:
        made = Credentials(
            wordpress_admin_password=secrets.token_urlsafe(18),
            wordpress_application_password="",
            weaviate_api_key=secrets.token_hex(20),
            weaviate_reader_api_key=secrets.token_hex(20),
            s3_access_key=secrets.token_hex(10).upper(),
            s3_secret_key=secrets.token_hex(20),
        )
        _store(instance, made)
        return made


def keep_application_password(instance: Instance, password: str) -> None:
    _store(instance, replace(load(instance), wordpress_application_password=password))


def _store(instance: Instance, credentials: Credentials) -> None:
    path = instance.state / "credentials.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(credentials), file, indent=1)
    new.replace(path)
