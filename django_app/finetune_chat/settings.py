"""FINETUNE_CHAT of Django's settings as a checked value. Must not read the environment: the site does that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from django.core.exceptions import ImproperlyConfigured
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from finetune_contract.secret_text import NOT_SENDABLE, is_sendable, without_margins


def _sendable(key: SecretStr) -> SecretStr:
    value = without_margins(key.get_secret_value())
    if not is_sendable(value):
        raise ValueError(f"the key {NOT_SENDABLE}; correct the Secret that it comes from")
    return SecretStr(value)


class _Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=str.upper,
        populate_by_name=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,  # a file's last newline comes along out of a Secret or ConfigMap
    )


class WeaviateSettings(_Settings):
    """The collection with the nine properties that the dataset stage writes."""

    url: Annotated[str, Field(pattern=r"^https?://[^/]+/?$")] = "http://localhost:8080"
    grpc_port: Annotated[int, Field(ge=1, le=65535)] = 50051
    collection: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9_]*$")]
    api_key: Annotated[SecretStr, AfterValidator(_sendable)] = SecretStr("")
    """Empty: anonymous."""


class ChatSettings(_Settings):
    """All settings, with defaults for everything but the index."""

    weaviate: WeaviateSettings | None = None
    """Search in Weaviate. Exactly one of WEAVIATE and DOCUMENTS is set."""
    documents: Path | None = None
    """Search in a documents.jsonl of a run, for laptops."""
    model_server_url: str = "http://127.0.0.1:8081"
    """OpenAI-style server."""
    model_id: str = ""
    """Refuse readiness unless the server serves this model; empty: whatever it serves."""
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.35
    """Share of the question's information that the best passage must hold, or the answer is a refusal."""
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 160
    """Length of an answer."""
    slots: Annotated[int, Field(ge=1, le=64)] = 2
    """Answers at the same time, in this process."""
    queue: Annotated[int, Field(ge=0, le=1000)] = 8
    """Visitors who wait; more are asked to come back."""
    first_token_timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    """The longest silence of the model server, prompt processing included."""
    site_name: str = "this site"
    """Shown on the page."""
    examples: list[str] = []
    """Questions that the page offers to start with."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> ChatSettings:
        """Check what a settings module says.

        Raises:
            ImproperlyConfigured: names each wrong entry.
        """
        try:
            parsed = cls.model_validate(dict(mapping))
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
                for item in error.errors(include_input=False)
            )
            raise ImproperlyConfigured(f"settings.FINETUNE_CHAT: {wrong}") from None
        if (parsed.weaviate is None) == (parsed.documents is None):
            raise ImproperlyConfigured("settings.FINETUNE_CHAT: set exactly one of WEAVIATE and DOCUMENTS")
        return parsed
