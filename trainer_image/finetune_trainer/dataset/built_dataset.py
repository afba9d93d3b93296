"""The dataset as the build hands it to the store and to its page. Values only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_contract.artifact_layout import DOCUMENTS_FILE, EVALUATION_FILE, TRAIN_FILE, TRANSFER_FILE
from finetune_contract.artifacts import Document, Example
from finetune_contract.model import ContractModel
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.alike_documents import Group
from finetune_trainer.dataset.cleaned_documents import NotedDocument
from finetune_trainer.dataset.cleaning.personal_data import Finding
from finetune_trainer.dataset.review import ReviewedRow
from finetune_trainer.dataset.sources.raw_document import DroppedDocument
from finetune_trainer.dataset.step_counts import StepCount


@dataclass(frozen=True)
class GeneratorUse:
    """What a language model was asked for this dataset, and how much of it passed the checks."""

    requests: int
    """Sent by this run; what was kept of earlier runs costs none."""
    max_requests: int
    pairs: int
    kept: int

    @property
    def refused_share(self) -> float:
        """Of the pairs, from 0 to 1."""
        return (self.pairs - self.kept) / self.pairs if self.pairs else 0.0

    def passed_in_words(self) -> str:
        """The same whether it was asked now or before."""
        passed = f"{self.kept:,} of {self.pairs:,} pairs of the generator passed the checks"
        return f"{passed} ({self.refused_share:.0%} refused)"

    def in_words(self) -> str:
        """With what it cost this time."""
        asked = f"the generator was asked {self.requests:,} of at most {self.max_requests:,} times"
        return f"{asked}; {self.passed_in_words()}"


@dataclass(frozen=True)
class BuiltDataset:
    """Rows, documents, and how they came to be. Rows and documents may lie on disk: make no list of them."""

    documents: Sequence[Document]
    training: Sequence[Example]
    evaluation: Sequence[Example]
    """The recall set: other questions about documents that are taught."""
    transfer: Sequence[Example] = ()
    """The transfer set: questions about documents that are not taught."""
    dropped: tuple[DroppedDocument, ...] = ()
    """Documents that were left out."""
    noted: tuple[NotedDocument, ...] = ()
    """Documents that were kept and should be looked at."""
    alike: tuple[Group, ...] = ()
    """Documents that are nearly the same, the largest group first."""
    generator: GeneratorUse | None = None
    steps: tuple[StepCount, ...] = ()
    personal_data: Mapping[str, int] = field(default_factory=dict)
    """How often personal data was found in the documents, by kind."""
    findings: tuple[Finding, ...] = ()
    """Some of these places, with hints that do not give the data away."""
    without_rows: tuple[ExampleKind, ...] = ()
    """Kinds of examples that were asked for, and of which none is there to train on."""
    reviewed: tuple[ReviewedRow, ...] = ()
    """What people said about rows, and what became of it."""

    def write_rows(self, folder: Path) -> tuple[str, str]:
        """Write the files that make the dataset what it is; its identity, and the sha256 of the documents' file."""
        files: dict[str, Sequence[ContractModel]] = {
            TRAIN_FILE: self.training,
            EVALUATION_FILE: self.evaluation,
            TRANSFER_FILE: self.transfer,
            DOCUMENTS_FILE: self.documents,
        }
        identity, documents = hashlib.sha256(), hashlib.sha256()
        for name in sorted(files):
            digest = hashlib.sha256(name.encode() + b"\n")
            with (folder / name).open("wb") as file:
                for line in json_lines(files[name]):
                    file.write(line)
                    digest.update(line)
                    if name == DOCUMENTS_FILE:
                        documents.update(line)
            identity.update(digest.digest())
        return identity.hexdigest(), documents.hexdigest()


def json_lines(rows: Iterable[ContractModel]) -> Iterator[bytes]:
    """One canonical JSON object a line."""
    for row in rows:
        text = json.dumps(row.to_wire(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        yield text.encode() + b"\n"
