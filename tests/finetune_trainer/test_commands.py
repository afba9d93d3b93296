from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from finetune_trainer import commands
from finetune_trainer.commands import spare_compiler


def ended(statements: str) -> subprocess.CompletedProcess[str]:
    code = f"import logging, sys\nfrom finetune_trainer.commands import run_process\n{statements}\nrun_process(main)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("given", "code"),
    [("0", 0), ("3", 3), ("None", 0), ("'no such file'", 1)],
    ids=["0", "3", "none", "words"],
)
def test_a_process_ends_with_the_code_that_its_command_gives(given: str, code: int):
    process = ended(f"def main(): sys.exit({given})")

    assert process.returncode == code
    assert ("no such file" in process.stderr) == ("no such file" in given)


def test_what_was_printed_and_logged_is_out_before_the_process_ends():
    process = ended("def main():\n print('printed', end='')\n logging.warning('logged')")

    assert process.returncode == 0
    assert process.stdout == "printed"
    assert "logged" in process.stderr


def test_a_command_whose_reader_has_had_enough_ends_without_a_word():
    code = (
        "from finetune_trainer.commands import run_process\n"
        "def main():\n for _ in range(100_000): print('line')\nrun_process(main)"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        words = process.stderr.read()

    assert (process.returncode, words) == (141, b"")


def test_an_error_that_nobody_caught_is_shown_as_python_shows_it():
    process = ended("def main(): raise ValueError('unforeseen')")

    assert process.returncode == 1
    assert "ValueError: unforeseen" in process.stderr


def test_the_compiler_is_left_alone_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    device = tmp_path / "nvidiactl"
    monkeypatch.setattr(commands, "GPU_DEVICES", (device,))
    without: dict[str, str] = {}
    chosen = {"TORCHDYNAMO_DISABLE": "0"}
    spare_compiler(without)
    spare_compiler(chosen)
    device.touch()
    with_gpu: dict[str, str] = {}
    spare_compiler(with_gpu)

    assert without == {"TORCHDYNAMO_DISABLE": "1"}
    assert chosen == {"TORCHDYNAMO_DISABLE": "0"}
    assert with_gpu == {}
