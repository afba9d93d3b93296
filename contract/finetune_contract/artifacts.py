"""What the stages hand on. Every folder of files ends with a manifest that is written last: present means whole.

Must not know where the folders lie (artifact_layout) or how they are stored.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_contract.model import ContractModel
from finetune_contract.run_spec import ExampleKind

MANIFEST_NAME = "manifest.json"


class Document(ContractModel):
    """A cleaned post or page: the nine properties of the knowledge base, plus where it came from."""

    source: str
    """Name of the source in the spec."""
    post_id: str
    """Identity in the source, such as the WordPress GUID or number."""
    post_title: str
    post_excerpt: str
    post_content: str
    """Markdown."""
    post_date: str
    """RFC 3339, UTC, ends with Z."""
    post_author: str
    post_categories: list[str]
    """Names, root first."""
    post_tags: list[str]
    post_url: str


class ChatMessage(ContractModel):
    """One turn."""

    role: Annotated[str, Field(pattern=r"^(user|assistant)$")]
    content: str


class Example(ContractModel):
    """One question with the answer that is taught or expected."""

    id: str
    """sha256 of kind, place of the document, template, question and what is shown beside it; the same over runs."""
    kind: ExampleKind
    document_url: str
    """Document that the answer comes from; empty for refusals about nothing on the site."""
    template: str
    """Name of the phrasing."""
    question: str
    prompt: list[ChatMessage]
    """What the model sees, rendered by prompt.conversation; ends with a user turn."""
    answer: str
    """What the model should say."""
    must_contain: list[str] = []
    """Strings of the answer that carry the fact; for evaluation."""


class GoldenQuestion(ContractModel):
    """A question of the evaluation that the new model answered right: a server that serves it must do so, too."""

    id: str
    """Of the example."""
    question: str
    prompt: list[ChatMessage]
    """What the model sees; ends with a user turn."""
    must_contain: list[str] = []
    """Strings that carry the fact; without any, the right answer is a refusal."""
    answer: str
    """What the model said in the evaluation."""


class FileEntry(ContractModel):
    """One file of an artifact."""

    path: str
    """Relative to the manifest, with slashes."""
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    serving: bool = False
    """The model server needs this file; model-fetch downloads only these."""


class ArtifactKind(StrEnum):
    """What a manifest describes."""

    DATASET = "dataset"
    ADAPTER = "adapter"
    CHECKPOINT = "checkpoint"
    MODEL = "model"
    EVALUATION = "evaluation"
    BASE_MODEL = "base-model"


class Manifest(ContractModel):
    """The table of contents of one artifact folder. Holds nothing but content: the same files give the same bytes."""

    kind: ArtifactKind
    files: list[FileEntry]
    """Sorted by path."""
    facts: dict[str, str | int | float | bool | list[str] | None] = {}
    """Small facts about the artifact: digests of its inputs, counts, settings."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, two spaces, one newline at the end."""
        return (json.dumps(self.to_wire(), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def sha256(self) -> str:
        """Digest of the canonical JSON; the identity of the artifact."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(entry.size for entry in self.files)
