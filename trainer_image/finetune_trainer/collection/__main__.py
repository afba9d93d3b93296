"""`python -m finetune_trainer.collection`: shows what may leave the store, and with `--delete` takes it out."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from finetune_contract.protected_models import ProtectedModels
from finetune_contract.run_document import InvalidRunDocument
from finetune_contract.stage_protocol import ExitCode
from finetune_trainer.collection.plan import DEFAULT_GRACE, DEFAULT_KEEP_PREVIOUS, Verdict, check_age
from finetune_trainer.collection.sweep import sweep
from finetune_trainer.errors import TrainerError
from finetune_trainer.run_settings import load_run
from finetune_trainer.stores.local_folder import LocalFolder
from finetune_trainer.stores.s3 import S3Store
from finetune_trainer.stores.store import Store

MOST_GRACE_HOURS = 87_600


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when the sweep is done, else that of the failure."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        protected = ProtectedModels.model_validate_json(options.protected.read_bytes())
        now = datetime.now(UTC)
        if options.delete:
            check_age(protected, now)
        verdicts = sweep(
            _store(options),
            protected,
            now,
            dry_run=not options.delete,
            keep_previous=options.keep_previous,
            grace=options.grace_hours,
        )
    except (ValidationError, InvalidRunDocument, OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return int(ExitCode.INVALID_RUN)
    except TrainerError as error:
        sys.stderr.write(f"error: {error}\n")
        return int(error.exit_code)
    sys.stdout.writelines(_lines(verdicts, deleted=options.delete))
    return int(ExitCode.OK)


def _parser() -> argparse.ArgumentParser:
    hours = DEFAULT_GRACE // timedelta(hours=1)
    parser = argparse.ArgumentParser(prog="python -m finetune_trainer.collection", description=__doc__)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--run", type=Path, help="YAML of a FineTuneRun, for its spec.store.s3")
    place.add_argument("--workspace", type=Path, help="folder that `finetune run` used as its store")
    parser.add_argument(
        "--protected", type=Path, required=True, help="JSON file of the models that must stay"
    )
    parser.add_argument("--keep-previous", type=int, default=DEFAULT_KEEP_PREVIOUS)
    parser.add_argument("--grace-hours", type=_grace, default=str(hours), help="garbage waits this long")
    parser.add_argument("--delete", action="store_true", help="without it nothing is written or deleted")
    return parser


def _grace(text: str) -> timedelta:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 <= hours <= MOST_GRACE_HOURS:
        raise argparse.ArgumentTypeError(f"expected hours from 0 to {MOST_GRACE_HOURS}, found {text!r}")
    return timedelta(hours=hours)


def _store(options: argparse.Namespace) -> Store:
    if options.workspace is not None:
        return LocalFolder(options.workspace)
    return S3Store.from_spec(load_run(options.run, [])[1].store.s3)


def _lines(verdicts: Sequence[Verdict], *, deleted: bool) -> list[str]:
    lines = [
        f"{verdict.fate.value:7} {verdict.run.run_key[:12]} {verdict.run.digest[:12] or '-':12} "
        f"{verdict.run.bytes / 2**20:8.0f} MiB  {verdict.why}\n"
        for verdict in verdicts
    ]
    return lines if deleted else [*lines, "dry run: nothing was written or deleted; --delete does it\n"]


if __name__ == "__main__":
    sys.exit(main())
