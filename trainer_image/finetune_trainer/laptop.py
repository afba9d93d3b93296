"""`finetune`: the same YAML and the same stages without a cluster, Weaviate or an S3 server.

A folder is the store; finished stages are found there and not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from finetune_contract.artifact_layout import TRAINING_REPORT_FILE, adapter_folder, model_folder
from finetune_contract.run_document import InvalidRunDocument
from finetune_contract.run_spec import FineTuneRunSpec, LastStage
from finetune_contract.run_status import Reason
from finetune_contract.stage_protocol import ExitCode, Stage, StageReport
from finetune_trainer.__main__ import StopSignal, run_stage
from finetune_trainer.dataset_command_line import add_dataset_commands
from finetune_trainer.estimate_command import add_estimate_command, run_estimate_command
from finetune_trainer.run_log import JsonProgress, Progress, TerminalProgress
from finetune_trainer.run_settings import load_run
from finetune_trainer.workspace import open_workspace

RESULT_FILE = "last-run.json"
"""In the workspace: how the last run ended."""


@dataclass(frozen=True)
class RunResult:
    """What `finetune run` prints with `-o json`, and leaves in the workspace."""

    run: str
    run_key: str
    reports: tuple[StageReport, ...]
    seconds: Mapping[str, float]
    store: str

    @property
    def exit_code(self) -> int:
        """That of the stage that ended the run."""
        return self.reports[-1].exit_code

    def to_json(self) -> str:
        """One object; the stages' reports by name."""
        return json.dumps(
            {
                "run": self.run,
                "runKey": self.run_key,
                "exitCode": self.exit_code,
                "store": self.store,
                "stages": {report.stage.value: report.to_wire() for report in self.reports},
                "seconds": {stage: round(seconds, 1) for stage, seconds in self.seconds.items()},
            },
            indent=2,
        )


def run_stages(
    name: str,
    spec: FineTuneRunSpec,
    workspace: Path,
    last_stage: Stage,
    environment: Mapping[str, str],
    json_lines: bool,
    stop: StopSignal,
) -> RunResult:
    """Run the stages in order until one ends badly, one finds finished work, or the last one is done."""
    context = open_workspace(workspace, name, spec, environment, lambda: stop.received)
    reports: list[StageReport] = []
    seconds: dict[str, float] = {}
    for stage in Stage:
        progress: Progress = JsonProgress(stage) if json_lines else TerminalProgress(stage)
        started = time.monotonic()
        report = run_stage(
            stage, replace(context, progress=progress, work_folder=workspace / "work" / stage.value)
        )
        if isinstance(progress, TerminalProgress):
            progress.close()
        seconds[stage.value] = time.monotonic() - started
        reports.append(report)
        if report.exit_code != ExitCode.OK or stage == last_stage:
            break
        if report.dataset is not None:
            context = replace(context, run_key=report.dataset.run_key, dataset_digest=report.dataset.digest)
            unchanged = report.reason == Reason.UNCHANGED
            if report.dataset.adopted or unchanged or spec.last_stage is LastStage.DATASET:
                break
    return RunResult(name, context.run_key, tuple(reports), seconds, context.store.uri(""))


def print_result(result: RunResult, workspace: Path, console: Console) -> None:
    """The run in a few lines for a person: stages, base against new, where things lie."""
    stages = Table(title=f"run {result.run}", title_justify="left")
    for column in ("stage", "result", "seconds", "facts"):
        stages.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    for report in result.reports:
        stages.add_row(
            report.stage.value, report.reason, f"{result.seconds[report.stage.value]:.1f}", report.message
        )
    console.print(stages)
    verdict = next((report.evaluation for report in reversed(result.reports) if report.evaluation), None)
    if verdict is None:
        return
    metrics = Table(title=f"gate: {verdict.gate or 'none'}", title_justify="left")
    for column in ("metric", "base", "new"):
        metrics.add_column(column)
    for metric in verdict.metrics:
        metrics.add_row(metric.name, *("–" if x is None else f"{x:.3f}" for x in (metric.base, metric.new)))
    console.print(metrics)
    console.print(f"model:    {workspace / 'store' / model_folder(result.run_key)}")
    console.print(f"training: {workspace / 'store' / adapter_folder(result.run_key) / TRAINING_REPORT_FILE}")
    console.print(f"report:   {verdict.report_uri}")


def build_parser() -> argparse.ArgumentParser:
    """The command line of `finetune`."""
    parser = argparse.ArgumentParser(
        prog="finetune",
        description="Fine-tune a model on a site's own posts, on this machine.",
        epilog="examples:\n"
        "  finetune run examples/quickstart/finetunerun.yaml --workspace out --set training.maxSteps=10\n"
        "  finetune dataset build examples/quickstart/finetunerun.yaml --workspace out\n"
        "  finetune dataset inspect --workspace out --kind grounded\n"
        "  finetune estimate examples/quickstart/finetunerun.yaml --gpu-memory 24Gi --config base/config.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add_dataset_commands(commands)
    add_estimate_command(commands)
    run = commands.add_parser(
        "run",
        help="run every stage of a FineTuneRun",
        description="Run dataset, train, package and evaluate here. The workspace folder takes the place of S3 and"
        " Weaviate. Finished stages are not run again; last-run.json there says how the last run ended."
        " Credentials come from the environment:"
        " WORDPRESS_USERNAME_<SOURCE> and WORDPRESS_PASSWORD_<SOURCE>, HF_TOKEN; for a base model on S3 also"
        " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    )
    run.add_argument("file", type=Path, help="YAML of the FineTuneRun")
    run.add_argument("--workspace", type=Path, required=True, help="folder for datasets, models and reports")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="another value for a field below spec; may be repeated"
        " (baseModel.uri=file:///models/smollm2, dataset.sources.site.wordpress.url=http://127.0.0.1:8091)",
    )
    run.add_argument(
        "--until", type=Stage, choices=list(Stage), default=Stage.EVALUATE, help="last stage to run"
    )
    run.add_argument(
        "-o",
        "--output",
        choices=("text", "json"),
        default="text",
        help="json prints progress lines and one object at the end",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point; ends the process with the ExitCode of the last stage."""
    arguments = build_parser().parse_args(argv)
    as_json = arguments.output == "json"
    logging.basicConfig(
        level=logging.INFO if as_json else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    stop = StopSignal()
    stop.install()
    if arguments.command == "dataset":
        # takes seconds to import, which --help need not wait for
        from finetune_trainer.dataset_commands import run_dataset_command

        sys.exit(run_dataset_command(arguments, dict(os.environ), lambda: stop.received))
    if arguments.command == "estimate":
        sys.exit(run_estimate_command(arguments))
    try:
        metadata, spec = load_run(arguments.file, arguments.set)
    except InvalidRunDocument as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(ExitCode.INVALID_RUN)
    workspace = arguments.workspace.resolve()
    result = run_stages(metadata.name, spec, workspace, arguments.until, dict(os.environ), as_json, stop)
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        (workspace / RESULT_FILE).write_text(result.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        print(f"{workspace / RESULT_FILE}: not written: {error.strerror}", file=sys.stderr)  # noqa: T201
    if as_json:
        print(result.to_json())  # noqa: T201
    else:
        print_result(result, workspace, Console())
    sys.exit(result.exit_code)


if __name__ == "__main__":
    main()
