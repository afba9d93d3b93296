"""The steps of a training, with checkpoints between them. Must not know what becomes of the model."""

from __future__ import annotations

import logging
import time

from safetensors import SafetensorError

from finetune_trainer.errors import Preempted, StoreUnavailable
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import checkpoints
from finetune_trainer.training.loop import TrainingLoop
from finetune_trainer.training.step_watch import StepWatch

logger = logging.getLogger(__name__)


def run_to_the_end(context: StageContext, loop: TrainingLoop, watch: StepWatch) -> None:
    """All steps that are left; a checkpoint on time, when told to stop, and at the end."""
    total = loop.plan.total_steps
    saved_at, saved_step = time.monotonic(), loop.state.step
    for record in loop.steps(context.stop_requested):
        watch.after_step(record)
        if (
            time.monotonic() - saved_at >= context.spec.training.checkpoint_every_seconds
            and record.step < total
        ):
            if _save(context, loop) is None:
                saved_step = record.step
            saved_at = time.monotonic()
    failure = _save(context, loop) if loop.state.step > saved_step else None
    if loop.state.step < total:
        stopped = f"told to stop after step {loop.state.step} of {total}"
        if failure is not None:
            raise Preempted(
                f"{stopped}, and the checkpoint could not be written ({failure}); "
                f"the next attempt goes on from step {saved_step}"
            ) from failure
        raise Preempted(f"{stopped}; the next attempt goes on from there")


def _save(context: StageContext, loop: TrainingLoop) -> Exception | None:
    """A checkpoint, or why there is none: a full disk or a silent store now must not cost the steps still to come."""
    loop.state.mark_checkpoint()
    try:
        checkpoints.save(loop, context.store, context.run_key, context.work_folder)
    except (StoreUnavailable, SafetensorError, OSError) as error:
        loop.state.mark_checkpoint(made=False)
        logger.warning("no checkpoint of step %d: %s", loop.state.step, error)
        return error
    return None
