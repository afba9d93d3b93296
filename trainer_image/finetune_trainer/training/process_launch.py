"""Starts the processes of a training in this pod, one a GPU, and ends as they end.

What torchrun does, with two differences: SIGTERM leaves them all the time that the pod has, and each leaves a report.
Must not know torch.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from finetune_contract.exit_reasons import STAGE_REASONS
from finetune_contract.stage_protocol import (
    ENV_MASTER_ADDRESS,
    ENV_MASTER_PORT,
    ENV_NODE_RANK,
    ENV_NODES,
    ENV_PROCESSES,
    ExitCode,
    Stage,
    StageReport,
)

logger = logging.getLogger(__name__)

LEFT_BEHIND_SECONDS = 20.0
"""Processes that wait for one that failed are ended after this."""
_LOOK_EVERY_SECONDS = 0.2
_SAYS_LITTLE = (1, ExitCode.INTERNAL_ERROR)
_NO_CAUSE = (*_SAYS_LITTLE, ExitCode.PREEMPTED)


def is_needed(environment: Mapping[str, str]) -> bool:
    """The training has several processes, and this is not one of them yet."""
    count = int(environment.get(ENV_NODES, "1")) * int(environment.get(ENV_PROCESSES, "1"))
    return count > 1 and "RANK" not in environment


def process_environments(environment: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment of each process of this pod."""
    local, nodes = int(environment.get(ENV_PROCESSES, "1")), int(environment.get(ENV_NODES, "1"))
    node = int(environment.get(ENV_NODE_RANK, "0"))
    return [
        {
            **environment,
            "RANK": str(node * local + number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(local * nodes),
            "MASTER_ADDR": environment.get(ENV_MASTER_ADDRESS, "127.0.0.1"),
            "MASTER_PORT": environment[ENV_MASTER_PORT],
        }
        for number in range(local)
    ]


def run_processes(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    work_folder: Path,
    stop_requested: Callable[[], bool],
) -> StageReport:
    """Run `finetune-stage` with these arguments in each process; the report of the first one, or of one that failed."""
    reports = work_folder / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    files = []
    processes: list[subprocess.Popen[bytes]] = []
    for number, own in enumerate(process_environments(environment)):
        file = reports / f"process-{number}.json"
        file.unlink(missing_ok=True)
        files.append(file)
        command = [sys.executable, "-m", "finetune_trainer", *arguments, "--report", str(file)]
        processes.append(subprocess.Popen(command, env=own))
    logger.info("processes started: count=%d", len(processes))
    failed = _wait(processes, stop_requested)
    return _read(files[failed], processes[failed].returncode)


def _wait(processes: Sequence[subprocess.Popen[bytes]], stop_requested: Callable[[], bool]) -> int:
    """Until all have ended; the number of the one whose report counts: of those that failed one that knows why.

    The others are cut off from it in the same moment, and know no more than that.
    """
    told, failed, deadline = False, None, float("inf")
    while any(process.poll() is None for process in processes):
        if stop_requested() and not told:
            told = True
            for process in processes:
                if process.poll() is None:
                    process.terminate()
        if failed is None:
            codes = [process.poll() for process in processes]
            failed = next((number for number, code in enumerate(codes) if code), None)
            if failed is not None and codes[failed] != ExitCode.PREEMPTED:  # those write their checkpoint
                deadline = time.monotonic() + LEFT_BEHIND_SECONDS
        if time.monotonic() > deadline:
            for process in processes:
                if process.poll() is None:
                    process.kill()
        time.sleep(_LOOK_EVERY_SECONDS)
    ended = [process.wait() for process in processes]
    if failed is None:
        failed = next((number for number, code in enumerate(ended) if code), 0)
    if ended[failed] in _SAYS_LITTLE:
        known = (number for number, code in enumerate(ended) if code > 0 and code not in _NO_CAUSE)
        failed = next(known, failed)
    return 0 if ended[failed] == ExitCode.PREEMPTED else failed


def _read(file: Path, exit_code: int) -> StageReport:
    try:
        return StageReport.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        fact = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
        code = ExitCode.HOST_OUT_OF_MEMORY if exit_code == -9 else ExitCode.INTERNAL_ERROR
        return StageReport(
            stage=Stage.TRAIN,
            exit_code=code,
            reason=STAGE_REASONS[code].value,
            message=f"a process of the training {fact} and left no report; its log says more",
        )


def own_arguments() -> list[str]:
    """What this stage was started with."""
    return sys.argv[1:]


def own_environment() -> Mapping[str, str]:
    """All of the environment, for the processes."""
    return os.environ
