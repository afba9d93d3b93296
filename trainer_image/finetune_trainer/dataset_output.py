"""How the dataset commands look on a terminal. What came from a site is never read as markup."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finetune_contract.artifact_layout import DATASET_REPORT_FILE
from finetune_contract.artifacts import Example
from finetune_trainer.dataset.dataset_on_disk import DatasetOnDisk
from finetune_trainer.dataset.difference import Change, Difference
from finetune_trainer.dataset.report import FEW_ROWS
from finetune_trainer.dataset.review import summary_in_words
from finetune_trainer.dataset.summary import summarise


def as_json(value: object) -> str:
    """Indented, with letters as they are."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def print_built(dataset: DatasetOnDisk, run: Path, workspace: Path, console: Console) -> None:
    """What was made, where it lies, and what to do next."""
    _print_kinds(dataset, console)
    _print_steps(dataset, console)
    if dataset.reviewed:
        _line(console, f"review:  {summary_in_words(dataset.reviewed)}")
    if len(dataset.training) < FEW_ROWS:
        _line(console, f"warning: {len(dataset.training)} training rows are under {FEW_ROWS}", "yellow")
    _line(console, f"dataset: {dataset.folder}")
    _line(console, f"report:  {dataset.folder / DATASET_REPORT_FILE}")
    _line(console, f"next:    finetune dataset inspect --workspace {workspace}")
    _line(console, f"         finetune run {run} --workspace {workspace}")


def print_inspection(
    dataset: DatasetOnDisk, samples: Mapping[str, Sequence[Example]], console: Console
) -> None:
    """Counts and lengths, then rows of each kind."""
    _print_kinds(dataset, console)
    for kind, rows in samples.items():
        console.print(Text(f"\n{kind}", style="bold"))
        for row in rows:
            console.print(Padding(Text(f"Q  {row.question}"), (0, 0, 0, 2)))
            console.print(Padding(Text(f"A  {row.answer}", style="green"), (0, 0, 0, 2)))
            told = f", must say {' and '.join(row.must_contain)}" if row.must_contain else ""
            console.print(
                Padding(
                    Text(f"   {row.document_url or 'no document'}  {row.id[:12]}{told}\n", style="dim"),
                    (0, 0, 0, 2),
                )
            )


def print_difference(documents: Difference, rows: Difference, shown: int, console: Console) -> None:
    """Counts, then the first changes of each sort."""
    table = Table()
    for column in ("", "added", "removed", "changed", "same"):
        table.add_column(column, justify="right" if column else "left")
    for name, part in (("documents", documents), ("rows", rows)):
        table.add_row(name, *(f"{number:,}" for number in _numbers(part)))
    console.print(table)
    for name, part in (("document", documents), ("row", rows)):
        _print_changes(f"{name}s added", part.added, "+", "green", shown, console)
        _print_changes(f"{name}s removed", part.removed, "-", "red", shown, console)
        _print_changes(f"{name}s changed", part.changed, "~", "yellow", shown, console)


def _numbers(part: Difference) -> tuple[int, int, int, int]:
    return len(part.added), len(part.removed), len(part.changed), part.same


def _print_changes(
    title: str, changes: Sequence[Change], sign: str, style: str, shown: int, console: Console
) -> None:
    if not changes:
        return
    console.print(Text(f"\n{title}", style="bold"))
    for change in changes[:shown]:
        console.print(Text(f"  {sign} {change.name}", style=style))
        if change.before and change.after and change.before != change.after:
            console.print(Text(f"      was {change.before}\n      is  {change.after}", style="dim"))
    if len(changes) > shown:
        console.print(Text(f"  and {len(changes) - shown:,} more", style="dim"))


def _print_kinds(dataset: DatasetOnDisk, console: Console) -> None:
    table = Table(
        title=f"dataset {dataset.digest[:12]}, {len(dataset.documents):,} documents", title_justify="left"
    )
    table.add_column("kind", no_wrap=True)
    for column in ("training", "recall set", "transfer set", "prompt words", "answer words", "longest"):
        table.add_column(column, justify="right")
    for line in summarise(dataset.examples):
        sides = [
            sum(line.kind in ("all", row.kind.value) for row in side)
            for side in (dataset.training, dataset.evaluation, dataset.transfer)
        ]
        table.add_row(
            line.kind,
            *(f"{number:,}" for number in sides),
            f"{line.mean_prompt:.1f}",
            f"{line.mean_answer:.1f}",
            f"{line.longest:,}",
            style="bold" if line.kind == "all" else "",
        )
    console.print(table)


def _print_steps(dataset: DatasetOnDisk, console: Console) -> None:
    table = Table()
    for column in ("step", "unit", "seen", "kept", "dropped", "why"):
        table.add_column(
            column, justify="right" if column in ("seen", "kept", "dropped") else "left", overflow="fold"
        )
    for step in dataset.steps:
        dropped, noted = _counts(step, "dropped"), _counts(step, "noted")
        why = [f"{number:,} {reason}" for reason, number in dropped[:5]]
        why += [f"{number:,} kept, to be looked at: {reason}" for reason, number in noted[:5]]
        table.add_row(
            *(Text(str(step[name])) for name in ("step", "unit", "seen", "kept")),
            str(sum(number for _, number in dropped)),
            Text("\n".join(why)),
        )
    console.print(table)


def _counts(step: Mapping[str, object], name: str) -> list[tuple[str, int]]:
    """Reasons with their numbers, the greatest first."""
    found = step.get(name)
    return sorted(found.items(), key=lambda item: (-item[1], item[0])) if isinstance(found, dict) else []


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
