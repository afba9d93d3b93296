from __future__ import annotations

import sys
from pathlib import Path

import pytest

from finetune_contract.stage_protocol import ExitCode
from finetune_trainer.training.process_launch import is_needed, process_environments, run_processes

GROUP = {
    "PET_NNODES": "2",
    "PET_NPROC_PER_NODE": "2",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "train-0.train",
    "PET_MASTER_PORT": "29400",
}
STAGE = """#!/bin/sh
# takes the place of Python: says what its process would have said
for file; do :; done
. "$(dirname "$0")/said-$RANK"
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what each process does."""
    program = tmp_path / "stage"
    program.write_text(STAGE)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return tmp_path


def does(said: Path, number: int, exit_code: int, message: str | None) -> None:
    report = f'{{"stage": "train", "exitCode": {exit_code}, "reason": "R", "message": "{message}"}}'
    write = "" if message is None else f"echo '{report}' > $file\n"
    (said / f"said-{number}").write_text(f"{write}exit {exit_code}\n")


ONE_NODE = {**GROUP, "PET_NNODES": "1", "PET_NODE_RANK": "0", "PATH": "/usr/bin:/bin"}


def test_processes_are_started_where_there_are_several_and_this_is_none_of_them():
    assert is_needed(GROUP)
    assert not is_needed({})
    assert not is_needed({"PET_NNODES": "1", "PET_NPROC_PER_NODE": "1"})
    assert not is_needed({**GROUP, "RANK": "3"})


def test_each_process_knows_its_number_and_where_the_first_one_is():
    third, fourth = process_environments(GROUP)

    assert (third["RANK"], fourth["RANK"]) == ("2", "3")
    assert (third["LOCAL_RANK"], fourth["LOCAL_RANK"]) == ("0", "1")
    assert third["WORLD_SIZE"] == "4"
    assert (third["MASTER_ADDR"], third["MASTER_PORT"]) == ("train-0.train", "29400")


def test_the_first_process_reports_for_all(said: Path):
    does(said, 0, 0, "28 steps")
    does(said, 1, 0, "beside it")

    report = run_processes(["train"], ONE_NODE, said, lambda: False)

    assert (report.exit_code, report.message) == (ExitCode.OK, "28 steps")


def test_one_that_failed_reports_for_all(said: Path):
    does(said, 0, 0, "28 steps")
    does(said, 1, ExitCode.CUDA_OUT_OF_MEMORY, "does not fit")

    report = run_processes(["train"], ONE_NODE, said, lambda: False)

    assert (report.exit_code, report.message) == (ExitCode.CUDA_OUT_OF_MEMORY, "does not fit")


def test_one_that_left_no_report_is_named(said: Path):
    does(said, 0, 0, "28 steps")
    does(said, 1, 9, None)

    report = run_processes(["train"], ONE_NODE, said, lambda: False)

    assert report.exit_code == ExitCode.INTERNAL_ERROR
    assert "ended with exit code 9 and left no report" in report.message


def test_of_those_that_were_preempted_the_first_reports(said: Path):
    does(said, 0, ExitCode.PREEMPTED, "checkpoint written")
    does(said, 1, ExitCode.PREEMPTED, "beside it")

    report = run_processes(["train"], ONE_NODE, said, lambda: False)

    assert (report.exit_code, report.message) == (ExitCode.PREEMPTED, "checkpoint written")


def test_one_that_knows_why_reports_for_those_that_were_cut_off_from_it(said: Path):
    does(said, 0, ExitCode.INTERNAL_ERROR, "Connection closed by peer")
    does(said, 1, ExitCode.STORE_UNAVAILABLE, "no answer")

    report = run_processes(["train"], ONE_NODE, said, lambda: False)

    assert (report.exit_code, report.message) == (ExitCode.STORE_UNAVAILABLE, "no answer")
