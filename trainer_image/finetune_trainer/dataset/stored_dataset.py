"""The dataset's folder in the store: rows under their digest, with what tells how they came about."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from finetune_contract.artifact_layout import (
    COUNTS_FILE,
    DATASET_REPORT_FILE,
    DROPPED_FILE,
    NOTED_FILE,
    REVIEWED_FILE,
    dataset_folder,
)
from finetune_contract.artifacts import MANIFEST_NAME, ArtifactKind
from finetune_contract.prompt import PROMPT_VERSION
from finetune_trainer.artifact_files import Fact, describe_folder, publish_folder, read_manifest
from finetune_trainer.dataset.built_dataset import BuiltDataset, json_lines
from finetune_trainer.dataset.cleaned_documents import NotedDocument
from finetune_trainer.dataset.report import render_report
from finetune_trainer.dataset.sources.raw_document import DroppedDocument
from finetune_trainer.dataset.step_counts import StepCount
from finetune_trainer.stage_context import StageContext

logger = logging.getLogger(__name__)


def store_dataset(context: StageContext, built: BuiltDataset) -> str:
    """Upload the folder under the digest of its rows; the digest.

    The same rows may have come about in another way: then what tells of it is stored anew.
    """
    folder = _empty_folder(context.work_folder / "dataset")
    digest, snapshot_digest = built.write_rows(folder)
    key = dataset_folder(digest)
    for name, content in _files_about(built, digest).items():
        (folder / name).write_bytes(content)
    facts = _facts(built, digest, snapshot_digest)
    earlier = read_manifest(context.store, key)
    if earlier is not None and earlier == describe_folder(folder, ArtifactKind.DATASET, facts):
        # Written again, for the newest on a disk is taken for the one that was built last.
        context.store.write(f"{key}/{MANIFEST_NAME}", earlier.to_bytes())
        logger.info("the dataset is stored already: uri=%s", context.store.uri(key))
        return digest
    manifest = publish_folder(context.store, key, folder, ArtifactKind.DATASET, facts)
    if earlier is not None:
        gone = {entry.path for entry in earlier.files} - {entry.path for entry in manifest.files}
        context.store.delete(f"{key}/{path}" for path in sorted(gone))
    return digest


def _files_about(built: BuiltDataset, digest: str) -> dict[str, bytes]:
    """How the rows came about, by name of the file."""
    files = {
        DROPPED_FILE: _lines(built.dropped),
        COUNTS_FILE: counts_as_json(built.steps).encode(),
        DATASET_REPORT_FILE: render_report(built, digest).encode(),
    }
    if built.noted:
        files[NOTED_FILE] = _lines(built.noted)
    if built.reviewed:
        files[REVIEWED_FILE] = b"".join(json_lines(built.reviewed))
    return files


def _facts(built: BuiltDataset, digest: str, snapshot_digest: str) -> dict[str, Fact]:
    return {
        "digest": digest,
        "snapshotSha256": snapshot_digest,
        "promptVersion": PROMPT_VERSION,
        "documents": len(built.documents),
        "dropped": len(built.dropped),
        "noted": len(built.noted),
        "trainingExamples": len(built.training),
        "evaluationExamples": len(built.evaluation),
        "transferExamples": len(built.transfer),
        "sources": sorted({document.source for document in built.documents}),
        "counts": [step.in_words() for step in built.steps],
        **({"generator": built.generator.passed_in_words()} if built.generator is not None else {}),
    }


def _lines(entries: Sequence[DroppedDocument | NotedDocument]) -> bytes:
    return b"".join(json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n" for entry in entries)


def counts_as_json(steps: Sequence[StepCount]) -> str:
    """counts.json: what each step saw, kept and dropped."""
    return json.dumps([step.to_json() for step in steps], indent=2, ensure_ascii=False) + "\n"


def _empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
