"""One of several processes of a training of the tiny model: `python -m ... FOLDER BASE [STOP_AFTER]`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from finetune_trainer.commands import run_process
from finetune_trainer.errors import Preempted
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import context_for, publish_dataset, spec_for
from tests.finetune_trainer.training.tiny_run import ROWS, StopAfter

SETTINGS: dict[str, object] = {
    "maxSteps": 4,
    "microBatchSize": 1,
    "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
}


def main(folder: Path, base: Path, stop_after: int | None) -> None:
    """Train, and leave what this process saw."""
    number = os.environ.get("RANK", "0")
    spec = spec_for(base, **SETTINGS)
    context = context_for(folder, spec)
    if number == "0":
        publish_dataset(context, ROWS)
    stop = StopAfter(stop_after) if stop_after is not None and number == "1" else lambda: False
    environment = {**os.environ, "PET_NPROC_PER_NODE": os.environ.get("WORLD_SIZE", "1")}
    try:
        report = train(replace(context, environment=environment, stop_requested=stop))
        seen = {"resumed": report.training.resumed_from_step} if report.training else {}
    except Preempted as error:
        seen = {"preempted": str(error)}
    (folder / f"seen-{number}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    stop_after = int(sys.argv[3]) if len(sys.argv) > 3 else None
    run_process(lambda: main(Path(sys.argv[1]), Path(sys.argv[2]), stop_after))
