"""One pod of a sweep that several share, as a process of its own: `python -m ... FOLDER BASE INDEX`. Not a test."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.stage_protocol import ENV_COMPLETION_INDEX, Stage
from finetune_trainer.run_log import JsonProgress
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import SilentProgress, context_for, spec_for

GRID = {"learningRate": [0.0005, 0.01], "rank": [2, 4]}


def pod_context(folder: Path, spec: FineTuneRunSpec, index: int) -> StageContext:
    """The surroundings of the pod with this index: scratch of its own, and the store that all share."""
    often = spec.training.model_copy(update={"checkpoint_every_seconds": 0})
    return dataclasses.replace(
        context_for(folder, spec.model_copy(update={"training": often})),
        work_folder=folder / f"work-{index}",
        progress=SilentProgress(),
        environment={ENV_COMPLETION_INDEX: str(index)},
        on_cluster=True,
    )


def main(folder: Path, base: Path, index: int) -> None:
    spec = spec_for(base, sweep={**GRID, "parallelism": 2})
    report = train(
        dataclasses.replace(
            pod_context(folder, spec, index), progress=JsonProgress(Stage.TRAIN, interval_seconds=0)
        )
    )
    print(report.to_message(), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
