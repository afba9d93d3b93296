"""A dataset's folder as people's commands read it: found by path, digest or workspace, checked line by line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from finetune_contract.artifact_layout import (
    COUNTS_FILE,
    DOCUMENTS_FILE,
    EVALUATION_FILE,
    REVIEWED_FILE,
    TRAIN_FILE,
    TRANSFER_FILE,
)
from finetune_contract.artifacts import MANIFEST_NAME, Document, Example, Manifest
from finetune_trainer.dataset.review import ReviewedRow
from finetune_trainer.errors import DataRejected

DATASETS = "datasets"
Row = TypeVar("Row", Document, Example, ReviewedRow)


@dataclass(frozen=True)
class DatasetOnDisk:
    """What was built."""

    folder: Path
    digest: str
    documents: tuple[Document, ...]
    training: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    transfer: tuple[Example, ...]
    reviewed: tuple[ReviewedRow, ...]
    steps: tuple[dict[str, object], ...]

    @property
    def examples(self) -> tuple[Example, ...]:
        """All sides together."""
        return (*self.training, *self.evaluation, *self.transfer)


def find_dataset(named: str, workspace: Path | None) -> Path:
    """The folder that is meant: a path, the beginning of a digest in the workspace, or the newest one there.

    Raises:
        DataRejected: none is, or several are.
    """
    if named and (Path(named) / MANIFEST_NAME).is_file():
        return Path(named)
    shelf = Path(named) if named and Path(named).is_dir() else workspace
    for place in (shelf / "store" / DATASETS, shelf / DATASETS, shelf) if shelf else ():
        found = sorted(path.parent for path in place.glob(f"*/{MANIFEST_NAME}"))
        if shelf == workspace and named:
            found = [path for path in found if path.name.startswith(named)]
            if len(found) > 1:
                raise DataRejected(
                    f"{named}: {len(found)} datasets in {place} begin so; write more of the digest"
                )
        if found:
            return max(found, key=lambda path: ((path / MANIFEST_NAME).stat().st_mtime_ns, path.name))
    raise DataRejected(
        f"{named or workspace or 'dataset'}: there is no dataset; give its folder, or --workspace and the beginning of "
        "its digest, or make one with `finetune dataset build`"
    )


def read_dataset(folder: Path) -> DatasetOnDisk:
    """The rows of a folder.

    Raises:
        DataRejected: a file is missing or is not of this version.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
        steps = json.loads((folder / COUNTS_FILE).read_bytes()) if (folder / COUNTS_FILE).is_file() else []
    except (OSError, ValueError) as error:
        raise DataRejected(f"{folder}: holds no dataset of this version; build it anew") from error
    return DatasetOnDisk(
        folder,
        str(manifest.facts.get("digest", folder.name)),
        documents=_rows(folder / DOCUMENTS_FILE, Document.model_validate_json),
        training=_rows(folder / TRAIN_FILE, Example.model_validate_json),
        evaluation=_rows(folder / EVALUATION_FILE, Example.model_validate_json),
        transfer=_rows(folder / TRANSFER_FILE, Example.model_validate_json, optional=True),
        reviewed=_rows(folder / REVIEWED_FILE, ReviewedRow.model_validate_json, optional=True),
        steps=tuple(steps),
    )


def _rows(path: Path, parse: Callable[[bytes], Row], optional: bool = False) -> tuple[Row, ...]:
    if optional and not path.is_file():
        return ()
    rows: list[Row] = []
    try:
        for line in path.read_bytes().splitlines():
            rows.append(parse(line))  # noqa: PERF401 - the error names the line
    except OSError as error:
        raise DataRejected(f"{path}: cannot be read ({error.strerror}); build the dataset anew") from error
    except ValidationError as error:
        raise DataRejected(
            f"{path}: line {len(rows) + 1} is no row of this version ({error.error_count()} faults); "
            "build the dataset anew"
        ) from error
    return tuple(rows)
