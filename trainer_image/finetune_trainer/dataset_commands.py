"""`finetune dataset build|inspect|diff|review`: look at what is taught, and correct it, before anything is trained."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from finetune_contract.artifact_layout import dataset_folder
from finetune_contract.artifacts import Example
from finetune_contract.run_document import InvalidRunDocument
from finetune_contract.run_spec import ExampleKind
from finetune_contract.stage_protocol import ExitCode, Stage, StageReport
from finetune_trainer.__main__ import run_stage
from finetune_trainer.dataset.dataset_on_disk import DatasetOnDisk, find_dataset, read_dataset
from finetune_trainer.dataset.difference import compare_documents, compare_rows
from finetune_trainer.dataset.report import sample_of
from finetune_trainer.dataset.review import (
    ReviewedRow,
    apply_again,
    sheet_rows,
    summary_in_words,
    unsaid,
    versions_by_url,
)
from finetune_trainer.dataset.review_sheet import Judgement, read_sheet, write_sheet
from finetune_trainer.dataset.summary import summarise
from finetune_trainer.dataset_output import (
    as_json,
    print_built,
    print_difference,
    print_inspection,
)
from finetune_trainer.errors import DataRejected, TrainerError
from finetune_trainer.run_log import JsonProgress, Progress, TerminalProgress
from finetune_trainer.run_settings import load_run
from finetune_trainer.stage_context import StageContext
from finetune_trainer.workspace import open_workspace


def run_dataset_command(
    arguments: argparse.Namespace, environment: Mapping[str, str], stop_requested: Callable[[], bool]
) -> int:
    """Carry out one action; the exit code."""
    actions: dict[str, Callable[[], int]] = {
        "build": lambda: _build(arguments, environment, stop_requested),
        "inspect": lambda: _inspect(arguments),
        "diff": lambda: _diff(arguments),
        "review": lambda: _review(arguments),
    }
    try:
        return actions[arguments.action]()
    except InvalidRunDocument as error:
        print(error, file=sys.stderr)  # noqa: T201
        return ExitCode.INVALID_RUN
    except TrainerError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code


def build_without_model(context: StageContext) -> StageReport:
    """The dataset stage; the base model, which decides about adoption only, is not asked for."""
    from finetune_trainer.dataset.build import ExactBaseModel, build_dataset

    return build_dataset(context, lambda _: ExactBaseModel("", ""))


def _build(
    arguments: argparse.Namespace, environment: Mapping[str, str], stop_requested: Callable[[], bool]
) -> int:
    metadata, spec = load_run(arguments.file, arguments.set)
    workspace = arguments.workspace.resolve()
    in_json = arguments.output == "json"
    progress: Progress = JsonProgress(Stage.DATASET) if in_json else TerminalProgress(Stage.DATASET)
    context = open_workspace(workspace, metadata.name, spec, environment, stop_requested)
    report = run_stage(
        Stage.DATASET,
        replace(context, progress=progress, work_folder=workspace / "work" / Stage.DATASET.value),
        build_without_model,
    )
    if isinstance(progress, TerminalProgress):
        progress.close()
    if report.dataset is None:
        if in_json:
            print(as_json(report.to_wire()))  # noqa: T201
        return report.exit_code  # the log has said why
    dataset = read_dataset(workspace / "store" / dataset_folder(report.dataset.digest))
    if in_json:
        print(as_json({**_facts(dataset), "reviewed": summary_in_words(dataset.reviewed)}))  # noqa: T201
    else:
        print_built(dataset, arguments.file, arguments.workspace, Console())
    return ExitCode.OK


def _inspect(arguments: argparse.Namespace) -> int:
    dataset = _chosen(arguments, read_dataset(find_dataset(arguments.dataset, arguments.workspace)))
    kinds = [kind for kind in ExampleKind if any(row.kind == kind for row in dataset.examples)]
    samples = {kind.value: sample_of(dataset.examples, kind, arguments.n) for kind in kinds}
    if arguments.output == "json":
        rows = {kind: [row.to_wire() for row in found] for kind, found in samples.items()}
        print(as_json({**_facts(dataset), "samples": rows}))  # noqa: T201
    else:
        print_inspection(dataset, samples, Console())
    return ExitCode.OK


def _diff(arguments: argparse.Namespace) -> int:
    old, new = (
        read_dataset(find_dataset(named, arguments.workspace)) for named in (arguments.old, arguments.new)
    )
    documents = compare_documents(old.documents, new.documents)
    rows = compare_rows(old.examples, new.examples)
    if arguments.output == "json":
        print(  # noqa: T201
            as_json(
                {"old": old.digest, "new": new.digest, "documents": asdict(documents), "rows": asdict(rows)}
            )
        )
    else:
        print_difference(documents, rows, arguments.n, Console())
    return ExitCode.OK


def _review(arguments: argparse.Namespace) -> int:
    if arguments.out is None and arguments.sheet is None:
        raise DataRejected(
            "finetune dataset review: neither --out nor --in; write --out review.csv to make a sheet"
        )
    dataset = read_dataset(find_dataset(arguments.dataset, arguments.workspace))
    versions = versions_by_url(dataset.documents)
    reviewed: tuple[ReviewedRow, ...] = dataset.reviewed
    workspace = arguments.workspace or "out"
    if arguments.sheet is not None:
        judgements = _read_sheet(arguments.sheet, "--in")
        reviewed = apply_again(judgements, dataset.examples, reviewed, versions, str(arguments.sheet))
        _say(
            arguments,
            f"{len(judgements)} lines of {arguments.sheet}: {summary_in_words(reviewed) or 'no verdict'}",
        )
        _say(
            arguments,
            f"next: finetune dataset build RUN.yaml --workspace {workspace} "
            f"--set dataset.reviewFile={arguments.sheet}",
        )
    if arguments.out is not None:
        dataset = _chosen(arguments, dataset)
        rows = (
            dataset.examples
            if arguments.sample is None
            else sample_of(dataset.examples, None, arguments.sample)
        )
        lines = sheet_rows(rows, versions, reviewed)
        _write_sheet(arguments.out, lines, [*lines, *(row.judgement for row in reviewed)])
        _say(arguments, f"{len(lines)} rows in {arguments.out}; write keep, correct or remove into `verdict`")
        _say(arguments, f"next: finetune dataset review --workspace {workspace} --in {arguments.out}")
    if arguments.output == "json":
        print(as_json([row.to_wire() for row in reviewed]))  # noqa: T201
    return ExitCode.OK


def _read_sheet(path: Path, option: str) -> list[Judgement]:
    try:
        return read_sheet(path.read_bytes(), str(path))
    except OSError as error:
        raise DataRejected(
            f"{option} {path}: cannot be read ({error.strerror}); name another file"
        ) from error


def _write_sheet(path: Path, lines: Sequence[Judgement], known: Sequence[Judgement]) -> None:
    """Write the sheet, but never over what a person wrote and nobody has read."""
    try:
        lost = unsaid(_read_sheet(path, "--out"), known) if path.exists() else []
    except DataRejected as error:
        raise DataRejected(f"--out {path}: is there and is no sheet ({error}); name another file") from error
    if lost:
        raise DataRejected(
            f"--out {path}: what was said in {len(lost)} of its lines would be lost; carry them over with "
            f"--in {path} --out {path}, or name another file"
        )
    try:
        path.write_bytes(write_sheet(lines))
    except OSError as error:
        raise DataRejected(
            f"--out {path}: cannot be written ({error.strerror}); name another file"
        ) from error


def _chosen(arguments: argparse.Namespace, dataset: DatasetOnDisk) -> DatasetOnDisk:
    """The dataset with the rows of --kind and --document only."""
    kind, document = arguments.kind, arguments.document.lower()
    titles = {row.post_url: row.post_title.lower() for row in dataset.documents}

    def meant(rows: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(
            row
            for row in rows
            if (kind is None or row.kind == kind)
            and (
                not document
                or document in row.document_url.lower()
                or document in titles.get(row.document_url, "")
            )
        )

    return replace(
        dataset,
        training=meant(dataset.training),
        evaluation=meant(dataset.evaluation),
        transfer=meant(dataset.transfer),
    )


def _facts(dataset: DatasetOnDisk) -> dict[str, object]:
    return {
        "digest": dataset.digest,
        "folder": str(dataset.folder),
        "documents": len(dataset.documents),
        "training": len(dataset.training),
        "evaluation": len(dataset.evaluation),
        "transfer": len(dataset.transfer),
        "kinds": [asdict(line) for line in summarise(dataset.training)],
        "steps": list(dataset.steps),
    }


def _say(arguments: argparse.Namespace, line: str) -> None:
    """For a person; with -o json it does not go between the JSON."""
    print(line, file=sys.stderr if arguments.output == "json" else sys.stdout)
