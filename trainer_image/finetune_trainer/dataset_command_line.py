"""The command line of `finetune dataset`: four actions that teach themselves by example."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from finetune_contract.run_spec import ExampleKind

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
        "environment, as for `finetune run`. With -o json it prints progress lines and one object at the end.",
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
    diff.add_argument("--workspace", type=Path, help="the folder that `build` was given")
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
    parser.add_argument("--workspace", type=Path, help="the folder that `build` was given")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind",
        type=_kind,
        metavar="KIND",
        help=f"rows of this kind only: {', '.join(ExampleKind)}",
    )
    parser.add_argument(
        "--document", default="", metavar="TEXT", help="rows of documents with this in address or title"
    )


def _kind(text: str) -> ExampleKind:
    try:
        return ExampleKind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no kind of example; choose one of {', '.join(ExampleKind)}"
        ) from error


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)
