"""`finetune dataset build|inspect|diff|review`: look at what is taught, and correct it, before anything is trained."""

from __future__ import annotations

import argparse
import sys
import textwrap
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
    apply_review,
    sheet_rows,
    summary_in_words,
    versions_by_url,
)
from finetune_trainer.dataset.review_sheet import read_sheet, write_sheet
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

EXAMPLES = """examples:
  finetune dataset build RUN.yaml --workspace out          make the dataset and nothing else
  finetune dataset inspect --workspace out                 counts, lengths and rows to read
  finetune dataset inspect --workspace out --kind refusal -n 10
  finetune dataset inspect --workspace out --document tickets
  finetune dataset diff OLD NEW --workspace out            what changed; a digest's beginning is enough
  finetune dataset review --workspace out --out review.csv --sample 200
  finetune dataset review --workspace out --in review.csv  check what was written into it
  finetune dataset build RUN.yaml --workspace out --set dataset.reviewFile=review.csv"""


def add_dataset_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put `dataset` and its four actions beside the other commands."""
    dataset = commands.add_parser(
        "dataset",
        help="build, read, compare and correct a dataset",
        description="What a model would be taught, before it is taught. Needs no model and no GPU.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = dataset.add_subparsers(dest="action", required=True)

    build = _action(
        actions,
        "build",
        "run the dataset stage alone",
        "Read the sources, clean, and make examples. The base model is not needed. Credentials come from the "
        "environment, as for `finetune run`.",
    )
    build.add_argument("file", type=Path, help="YAML of the FineTuneRun")
    build.add_argument("--workspace", type=Path, required=True, help="folder for datasets")
    build.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="another value for a field below spec",
    )

    inspect = _action(actions, "inspect", "counts, lengths and rows to read", "Show what a dataset teaches.")
    _add_dataset(inspect)
    _add_choice(inspect)
    inspect.add_argument(
        "-n", type=_number, default=3, metavar="N", help="rows of each kind (default: %(default)s)"
    )

    diff = _action(
        actions,
        "diff",
        "what changed between two datasets",
        "Documents and rows that were added, removed or changed.",
    )
    diff.add_argument("old", help="folder, or the beginning of a digest")
    diff.add_argument("new", help="folder, or the beginning of a digest")
    diff.add_argument("--workspace", type=Path, help="where digests are looked up")
    diff.add_argument(
        "-n", type=_number, default=10, metavar="N", help="changes to show (default: %(default)s)"
    )

    review = _action(
        actions,
        "review",
        "a sheet for people, out and in",
        "Write rows into a CSV that opens in any spreadsheet; read it again and say what it would change. In "
        "the sheet `verdict` is keep, correct or remove; a corrected answer goes into `corrected_answer`. "
        "Name the file in spec.dataset.reviewFile, and every later build applies it.",
    )
    _add_dataset(review)
    _add_choice(review)
    review.add_argument("--out", type=Path, metavar="FILE", help="write the sheet")
    review.add_argument("--in", type=Path, metavar="FILE", dest="sheet", help="read the sheet and check it")
    review.add_argument("--sample", type=_number, metavar="N", help="rows to write; all when left out")


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
    from finetune_trainer.dataset.build import build_dataset

    return build_dataset(context, lambda _: "")


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
        else:
            print(report.message, file=sys.stderr)  # noqa: T201
        return report.exit_code
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
    if arguments.sheet is not None:
        try:
            judgements = read_sheet(arguments.sheet.read_bytes(), str(arguments.sheet))
        except OSError as error:
            raise DataRejected(f"--in {arguments.sheet}: cannot be read ({error.strerror})") from error
        applied = apply_review(judgements, (dataset.examples,), versions, str(arguments.sheet))
        reviewed = applied.rows
        _say(
            arguments,
            f"{len(judgements)} lines of {arguments.sheet}: {summary_in_words(reviewed) or 'no verdict'}",
        )
        _say(
            arguments,
            f"next: finetune dataset build RUN.yaml --workspace {arguments.workspace or 'out'} "
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
        arguments.out.write_bytes(write_sheet(lines))
        _say(arguments, f"{len(lines)} rows in {arguments.out}; write keep, correct or remove into `verdict`")
        _say(
            arguments,
            f"next: finetune dataset review --workspace {arguments.workspace or 'out'} --in {arguments.out}",
        )
    if arguments.output == "json":
        print(as_json([row.to_wire() for row in reviewed]))  # noqa: T201
    return ExitCode.OK


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


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    lines = [line for line in EXAMPLES.splitlines()[1:] if f"dataset {name} " in line]
    parser = actions.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, 96),
        epilog="\n".join(["examples:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="json for programs")
    return parser


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dataset",
        nargs="?",
        default="",
        help="folder, or the beginning of a digest; the newest when left out",
    )
    parser.add_argument("--workspace", type=Path, help="where datasets are looked up")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind", type=ExampleKind, choices=list(ExampleKind), metavar="KIND", help="rows of this kind only"
    )
    parser.add_argument(
        "--document", default="", metavar="TEXT", help="rows of documents with this in address or title"
    )


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("a number from 1")
    return number
