"""Steps of a training in Weights & Biases. A resumed attempt goes on in the same run.

Neither the log of the process nor code is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import wandb

from finetune_trainer.stage_context import StageContext
from finetune_trainer.training.trackers import name_and_key

PROJECT = "finetune"


class WandbRun:
    """Writes in the background."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One row a step."""
        self._run.log(dict(values), step=step)

    def close(self, finished: bool) -> None:
        """An exit code that is not 0 when a later attempt goes on."""
        self._run.finish(exit_code=0 if finished else 1)


def open_tracker(context: StageContext) -> WandbRun:
    """The run of this run key in the project WANDB_PROJECT."""
    name, key = name_and_key(context)
    run = wandb.init(
        project=context.environment.get("WANDB_PROJECT") or PROJECT,
        name=name,
        id=key,
        resume="allow",
        dir=str(context.work_folder),
        settings=wandb.Settings(console="off", disable_git=True, disable_code=True),
        config={"training": context.spec.training.to_wire(), "baseModel": context.spec.base_model.uri},
    )
    return WandbRun(run)
