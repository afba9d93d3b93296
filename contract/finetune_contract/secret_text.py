"""Keys and tokens as they come out of a Secret: without the newline at the end of a file, and fit for an HTTP header.

HTTP clients refuse what does not fit with errors that repeat the whole header, so it is refused before they see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from finetune_contract.stage_protocol import (
    ENV_S3_ACCESS_KEY_ID,
    ENV_S3_SECRET_ACCESS_KEY,
    ENV_S3_SESSION_TOKEN,
)

NOT_SENDABLE = "holds a line break, a control character or a letter outside ASCII"
"""What is told of such a value: it is never repeated itself."""


class S3Keys(NamedTuple):
    """What S3 is signed with."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    @property
    def are_sendable(self) -> bool:
        """The secret itself is never sent."""
        return is_sendable(self.access_key_id) and is_sendable(self.session_token or "")


def without_margins(value: str) -> str:
    """The value without white space around it: `kubectl create secret --from-file` keeps a file's last newline."""
    return value.strip()


def is_sendable(value: str) -> bool:
    """Whether an HTTP header can carry it."""
    return value.isascii() and value.isprintable()


def s3_keys(environment: Mapping[str, str]) -> S3Keys | None:
    """The keys of the usual AWS variables; None unless both are there, and then boto3 looks elsewhere too."""
    access, secret, token = (
        without_margins(environment.get(name, ""))
        for name in (ENV_S3_ACCESS_KEY_ID, ENV_S3_SECRET_ACCESS_KEY, ENV_S3_SESSION_TOKEN)
    )
    return S3Keys(access, secret, token or None) if access and secret else None
