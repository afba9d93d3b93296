"""`finetune-stage NAME`: one stage in a Job. Reads the run, runs the stage, leaves report and exit code.

The one place that catches everything: what is not a TrainerError is a fault of ours and ends with INTERNAL_ERROR.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from pathlib import Path

from pydantic import ValidationError

from finetune_contract.exit_reasons import STAGE_REASONS
from finetune_contract.run_document import InvalidRunDocument, parse_spec
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.stage_protocol import (
    ENV_TRAINING_OVERLAY,
    RUN_FILE,
    TERMINATION_MESSAGE_PATH,
    WORK_FOLDER,
    ExitCode,
    RunFile,
    Stage,
    StageReport,
)
from finetune_contract.training_overlay import with_overlay
from finetune_trainer.errors import InvalidRun, TrainerError
from finetune_trainer.masked_secrets import masked
from finetune_trainer.run_log import JsonProgress
from finetune_trainer.stage_context import StageContext, StageFunction
from finetune_trainer.stages import load_stage
from finetune_trainer.stores.s3 import S3Store

logger = logging.getLogger("finetune_trainer")


class StopSignal:
    """Remembers that SIGTERM came. Stages ask; nothing is interrupted."""

    def __init__(self) -> None:
        self.received = False

    def install(self) -> None:
        """Take over SIGTERM and SIGINT of this process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)

    def _remember(self, *_: object) -> None:
        self.received = True


def read_run(path: Path) -> RunFile:
    """The run's file; InvalidRun when it is not one."""
    try:
        return RunFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidRun(f"{path}: is no run file ({error}); was the ConfigMap changed by hand?") from error


def at_commit(spec: FineTuneRunSpec, base_model: str) -> FineTuneRunSpec:
    """The spec with the base model that the dataset stage found: a branch may have moved since."""
    if not base_model:
        return spec
    return spec.model_copy(update={"base_model": spec.base_model.model_copy(update={"uri": base_model})})


def run_stage(stage: Stage, context: StageContext, function: StageFunction | None = None) -> StageReport:
    """Run one stage, or `function` in its place; every error becomes a report with exit code and without secrets."""
    try:
        return (function or load_stage(stage))(context)
    except TrainerError as error:
        words = masked(str(error), context.environment)
        logger.error("%s stage ended: %s", stage, words)
        return failure_report(stage, error.exit_code, words)
    except MemoryError as error:
        logger.exception("%s stage ran out of memory", stage)
        return failure_report(stage, ExitCode.HOST_OUT_OF_MEMORY, f"out of memory: {error}")
    except Exception as error:  # noqa: BLE001 - it is logged with its trace, masked
        trace = masked("".join(traceback.format_exception(error)), context.environment)
        logger.error("%s stage met an error that it does not know\n%s", stage, trace.rstrip())
        words = masked(f"{type(error).__name__}: {error}", context.environment)
        return failure_report(stage, ExitCode.INTERNAL_ERROR, words)


def failure_report(stage: Stage, exit_code: ExitCode, message: str) -> StageReport:
    """A report of a stage that did not finish."""
    return StageReport(
        stage=stage, exit_code=exit_code, reason=STAGE_REASONS[exit_code].value, message=message[:3000]
    )


def build_parser() -> argparse.ArgumentParser:
    """The command line of a Job."""
    parser = argparse.ArgumentParser(
        prog="finetune-stage",
        description="Run one stage of a FineTuneRun. The operator starts this in a Job; by hand, use `finetune run`.",
    )
    parser.add_argument("stage", type=Stage, choices=list(Stage), metavar="{dataset,train,package,evaluate}")
    parser.add_argument(
        "--run", type=Path, default=Path(RUN_FILE), help="the run as JSON (default: %(default)s)"
    )
    parser.add_argument("--run-key", default="", help="identity of the work, from the dataset stage's report")
    parser.add_argument(
        "--dataset-digest", default="", help="dataset to use, from the dataset stage's report"
    )
    parser.add_argument(
        "--base-model",
        default="",
        help="take this base model in the place of spec.baseModel.uri: the same at its commit, from the store",
    )
    parser.add_argument(
        "--work", type=Path, default=Path(WORK_FOLDER), help="scratch folder (default: %(default)s)"
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=Path(TERMINATION_MESSAGE_PATH),
        help="where the stage report goes (default: %(default)s)",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Entry point; ends the process with an ExitCode."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    for chatty in ("httpx", "botocore", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    stop = StopSignal()
    stop.install()
    stage: Stage = arguments.stage
    try:
        run = read_run(arguments.run)
        spec = at_commit(parse_spec(run.spec), arguments.base_model)
        spec = with_overlay(spec, os.environ.get(ENV_TRAINING_OVERLAY, ""))
        context = StageContext(
            run_name=run.name,
            spec=spec,
            work_folder=arguments.work,
            store=S3Store.from_spec(spec.store.s3),
            progress=JsonProgress(stage),
            environment=dict(os.environ),
            run_key=arguments.run_key,
            dataset_digest=arguments.dataset_digest,
            stop_requested=lambda: stop.received,
        )
        report = run_stage(stage, context)
    except (TrainerError, InvalidRunDocument) as error:
        logger.error("%s stage cannot start: %s", stage, error)
        report = failure_report(stage, ExitCode.INVALID_RUN, str(error))
    try:
        arguments.report.write_text(report.to_message())
    except OSError as error:
        logger.warning("the report cannot be written to %s: %s", arguments.report, error)
    sys.exit(report.exit_code)


if __name__ == "__main__":
    main()
