"""The dataset's folder in the store: written once under its digest, and read back by people's commands."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from finetune_contract.artifact_layout import (
    COUNTS_FILE,
    DATASET_REPORT_FILE,
    DOCUMENTS_FILE,
    DROPPED_FILE,
    REVIEWED_FILE,
    dataset_folder,
)
from finetune_contract.artifacts import ArtifactKind
from finetune_contract.prompt import PROMPT_VERSION
from finetune_trainer.artifact_files import publish_folder, read_manifest
from finetune_trainer.dataset.built_dataset import BuiltDataset, digest_of, json_lines
from finetune_trainer.dataset.report import render_report
from finetune_trainer.dataset.step_counts import StepCount
from finetune_trainer.stage_context import StageContext

logger = logging.getLogger(__name__)


def store_dataset(context: StageContext, built: BuiltDataset) -> str:
    """Upload the folder under its digest, unless it is there; the digest."""
    files = built.files()
    digest = digest_of(files)
    key = dataset_folder(digest)
    if read_manifest(context.store, key) is not None:
        logger.info("the dataset is stored already: uri=%s", context.store.uri(key))
        return digest
    folder = _empty_folder(context.work_folder / "dataset")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / DROPPED_FILE).write_bytes(
        b"".join(json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n" for entry in built.dropped)
    )
    if built.reviewed:
        (folder / REVIEWED_FILE).write_bytes(json_lines(built.reviewed))
    (folder / COUNTS_FILE).write_text(counts_as_json(built.steps), encoding="utf-8")
    (folder / DATASET_REPORT_FILE).write_text(render_report(built, digest), encoding="utf-8")
    publish_folder(
        context.store,
        key,
        folder,
        ArtifactKind.DATASET,
        {
            "digest": digest,
            "snapshotSha256": hashlib.sha256(files[DOCUMENTS_FILE]).hexdigest(),
            "promptVersion": PROMPT_VERSION,
            "documents": len(built.documents),
            "dropped": len(built.dropped),
            "trainingExamples": len(built.training),
            "evaluationExamples": len(built.evaluation),
            "transferExamples": len(built.transfer),
            "sources": sorted({document.source for document in built.documents}),
            "counts": [step.in_words() for step in built.steps],
        },
    )
    return digest


def counts_as_json(steps: Sequence[StepCount]) -> str:
    """counts.json: what each step saw, kept and dropped."""
    return json.dumps([step.to_json() for step in steps], indent=2, ensure_ascii=False) + "\n"


def _empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
