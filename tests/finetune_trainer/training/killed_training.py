"""Train the tiny model in child processes that are killed at random moments, until one comes to its end.

A program of its own, for a process that has started threads must not fork. It leaves the folders `undisturbed` and
`killed`, and in `attempts.json` how often it killed, and the step that the last attempt went on from.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import bitsandbytes  # noqa: F401 - loaded once, before the children part
import peft  # noqa: F401
import torch

from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import SilentProgress, save_tiny_model
from tests.finetune_trainer.training.tiny_run import context_with_checkpoints

STEPS = 10
KILLS = 4
FINISHED = 100
"""Exit code of a child that resumed from step 0; one more for each step."""


class TellingProgress(SilentProgress):
    """A byte for each step."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self.pipe = pipe

    def __call__(self, *args: Any, **facts: Any) -> None:
        super().__call__(*args, **facts)
        if facts.get("loss") is not None:
            os.write(self.pipe, b".")


def train_here(folder: Path, base: Path, pipe: int) -> int:
    """A checkpoint after every step; the exit code."""
    context = context_with_checkpoints(folder, base, maxSteps=STEPS)
    report = train(dataclasses.replace(context, progress=TellingProgress(pipe)))
    assert report.training is not None
    return FINISHED + report.training.resumed_from_step


def attempt(folder: Path, base: Path, after_steps: int | None = None, seconds: float = 0.0) -> int | None:
    """Start a child and kill it so long after it has said so many steps; None when it died of that."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(told)
            code = train_here(folder, base, tell)
        finally:
            os._exit(code)
    os.close(tell)
    if after_steps is not None:
        for _ in range(after_steps):
            if not os.read(told, 1):
                break
        select.select([], [], [], seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(told)
    if os.WIFSIGNALED(status):
        return None
    code = os.waitstatus_to_exitcode(status)
    if code < FINISHED:
        sys.exit(f"an attempt ended with {code}")
    return code - FINISHED


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    base = save_tiny_model(folder / "base")
    started = time.monotonic()
    attempt(folder / "undisturbed", base)
    step_seconds = (time.monotonic() - started) / STEPS
    dice = random.Random(seed)  # noqa: S311 - moments, not secrets
    kills, resumed = 0, None
    while kills < KILLS and resumed is None:
        resumed = attempt(folder / "killed", base, dice.randrange(3), dice.uniform(0, 2 * step_seconds))
        kills += resumed is None
    if resumed is None:
        resumed = attempt(folder / "killed", base)
    (folder / "attempts.json").write_text(json.dumps({"kills": kills, "resumed": resumed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
