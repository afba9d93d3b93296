"""The dataset as the build hands it to the store and to its page. Values only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from finetune_contract.artifact_layout import DOCUMENTS_FILE, EVALUATION_FILE, TRAIN_FILE, TRANSFER_FILE
from finetune_contract.artifacts import Document, Example
from finetune_contract.model import ContractModel
from finetune_trainer.dataset.cleaned_documents import NotedDocument
from finetune_trainer.dataset.cleaning.personal_data import Finding
from finetune_trainer.dataset.review import ReviewedRow
from finetune_trainer.dataset.sources.raw_document import DroppedDocument
from finetune_trainer.dataset.step_counts import StepCount


@dataclass(frozen=True)
class BuiltDataset:
    """Rows, documents, and how they came to be."""

    documents: tuple[Document, ...]
    training: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    """The recall set: other questions about documents that are taught."""
    transfer: tuple[Example, ...] = ()
    """The transfer set: questions about documents that are not taught."""
    dropped: tuple[DroppedDocument, ...] = ()
    """Documents that were left out."""
    noted: tuple[NotedDocument, ...] = ()
    """Documents that were kept and should be looked at."""
    steps: tuple[StepCount, ...] = ()
    personal_data: Mapping[str, int] = field(default_factory=dict)
    """How often personal data was found in the documents, by kind."""
    findings: tuple[Finding, ...] = ()
    """Some of these places, with hints that do not give the data away."""
    reviewed: tuple[ReviewedRow, ...] = ()
    """What people said about rows, and what became of it."""

    def files(self) -> dict[str, bytes]:
        """The files that make the dataset what it is, by name."""
        return {
            TRAIN_FILE: json_lines(self.training),
            EVALUATION_FILE: json_lines(self.evaluation),
            TRANSFER_FILE: json_lines(self.transfer),
            DOCUMENTS_FILE: json_lines(self.documents),
        }


def digest_of(files: Mapping[str, bytes]) -> str:
    """The dataset's identity."""
    return hashlib.sha256(
        b"".join(hashlib.sha256(name.encode() + b"\n" + files[name]).digest() for name in sorted(files))
    ).hexdigest()


def json_lines(rows: Iterable[ContractModel]) -> bytes:
    """One canonical JSON object a line."""
    return b"".join(
        json.dumps(row.to_wire(), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        for row in rows
    )
