"""The posts in Weaviate before the first run, so that the untuned model is asked fairly: with the same sources.

This is the dataset stage itself, started by hand against the addresses that this machine uses; the run's own dataset
stage then finds every post unchanged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from demo.errors import DemoError
from devcluster.progress import Progress
from finetune_contract.run_document import parse_run
from finetune_contract.stage_protocol import (
    ENV_S3_ACCESS_KEY_ID,
    ENV_S3_SECRET_ACCESS_KEY,
    ENV_WEAVIATE_API_KEY,
    ProgressLine,
    RunFile,
    Stage,
    StageReport,
    wordpress_password_env,
    wordpress_username_env,
)
from finetune_trainer.run_settings import with_settings

PART = "weaviate"
SOURCE = "site"


def fill(environment: Mapping[str, str], run: Mapping[str, object], progress: Progress) -> StageReport:
    """Run the dataset stage of a run on this machine.

    Raises:
        DemoError: the stage failed; the message is its own.
    """
    document = with_settings(yaml.safe_dump(run), settings_for_this_machine(environment))
    metadata, spec = parse_run(document)
    with (
        tempfile.TemporaryDirectory(prefix="finetune-demo-") as folder,
        progress.step(PART, "the site's posts into Weaviate, by the dataset stage"),
    ):
        run_file, report_file = Path(folder, "run.json"), Path(folder, "report.json")
        run_file.write_text(json.dumps(RunFile(name=metadata.name, spec=spec.to_wire()).to_wire()))
        command = [
            sys.executable,
            "-m",
            "finetune_trainer",
            Stage.DATASET,
            "--run",
            run_file,
            "--work",
            folder,
        ]
        with subprocess.Popen(
            [*map(str, command), "--report", str(report_file)],
            env={**os.environ, **credentials(environment)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            for line in process.stdout or ():
                if said := ProgressLine.parse(line):
                    progress.moving(PART, f"{said.message} {said.step}/{said.total_steps}")
            log = process.stderr.read() if process.stderr else ""
        report = StageReport.parse(report_file.read_text()) if report_file.is_file() else None
        if report is None or report.exit_code != 0:
            raise DemoError(report.message if report else f"the dataset stage left no report:\n{log[-2000:]}")
    return report


def settings_for_this_machine(environment: Mapping[str, str]) -> list[str]:
    """The parts' own addresses in place of their names inside the cluster."""
    return [
        f"dataset.sources.{SOURCE}.wordpress.url={environment['WORDPRESS_URL']}",
        f"dataset.knowledgeBase.weaviate.url={environment['WEAVIATE_URL']}",
        f"store.s3.endpoint={environment['S3_ENDPOINT']}",
    ]


def credentials(environment: Mapping[str, str]) -> dict[str, Any]:
    """Secrets under the names that a stage reads."""
    return {
        wordpress_username_env(SOURCE): environment["WORDPRESS_USER"],
        wordpress_password_env(SOURCE): environment["WORDPRESS_APP_PASSWORD"],
        ENV_WEAVIATE_API_KEY: environment["WEAVIATE_API_KEY"],
        ENV_S3_ACCESS_KEY_ID: environment["AWS_ACCESS_KEY_ID"],
        ENV_S3_SECRET_ACCESS_KEY: environment["AWS_SECRET_ACCESS_KEY"],
    }
