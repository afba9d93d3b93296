"""What is seen of a training from outside: memory, evaluation loss, progress, metrics.prom, trackers.

It completes the records of the log and changes nothing about the training. Must not know how a step is made.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch

from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import evaluation_loss, prometheus_text
from finetune_trainer.training.encoding import EncodedExample
from finetune_trainer.training.loop import StepRecord, TrainingLoop
from finetune_trainer.training.trackers import Trackers, open_trackers

logger = logging.getLogger(__name__)


def watch_steps(context: StageContext, loop: TrainingLoop, base_folder: Path) -> StepWatch:
    """The watch of a loop that is ready to run, with the questions that it measures."""
    plan = evaluation_loss.schedule(
        loop.plan.total_steps,
        loop.training.effective_batch_size,
        loop.training.evaluate_every_steps,
    )
    questions = evaluation_loss.read_questions(context, base_folder, plan.questions)
    return StepWatch(context, loop, plan, questions)


def memory_in_use(device: torch.device) -> int:
    """Bytes: on a GPU the most that was used so far, on a CPU what the process holds now."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the most so far, in bytes on macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()


class StepWatch:
    """Told of every step inside a `with`; trackers are told how that ends."""

    def __init__(
        self,
        context: StageContext,
        loop: TrainingLoop,
        schedule: evaluation_loss.EvaluationSchedule,
        questions: Sequence[EncodedExample],
    ) -> None:
        self._context, self._loop = context, loop
        self._schedule, self._questions = schedule, questions
        self._tokens = loop.state.tokens
        self._resumed = loop.state.step > 0
        self._evaluation_loss = last_evaluation_loss(loop.state.log)
        self._metrics_file: Path | None = context.work_folder / prometheus_text.METRICS_FILE
        self._trackers = Trackers({})

    def __enter__(self) -> Self:
        self._trackers = open_trackers(self._context)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._trackers.close(finished=error is None)

    def after_step(self, record: StepRecord) -> None:
        """Complete the log's last record, and tell whoever watches."""
        measured = self.measure(record.step)
        record = replace(
            record,
            evaluation_loss=measured,
            memory_bytes=memory_in_use(self._loop.device),
            resumed=self._resumed,
        )
        self._loop.state.log[-1] = record
        self._resumed = False
        self._tokens += record.tokens
        self._write_metrics(record)
        self._trackers.add(record.step, _values(record))
        self._context.progress(
            record.step,
            self._loop.plan.total_steps,
            message="training",
            loss=record.loss,
            tokens_per_second=record.tokens / record.seconds,
            evaluation_loss=self._evaluation_loss,
            memory_bytes=record.memory_bytes,
        )

    def evaluation_loss_at_the_end(self) -> float | None:
        """That of the last step; measured now when it was not then. None when told to stop, or when it is no number.

        Raises:
            CudaOutOfMemory: there is no room for it on the GPU.
        """
        log = self._loop.state.log
        if log[-1].evaluation_loss is None:
            measured = evaluation_loss.measure_or_fail(
                self._loop, self._questions, self._context.stop_requested
            )
            log[-1] = replace(log[-1], evaluation_loss=measured)
        return log[-1].evaluation_loss

    def measure(self, step: int) -> float | None:
        """The evaluation loss where one is due. Over a base that is dealt out all processes measure it together."""
        if not self._questions or not self._schedule.is_due(step, self._loop.plan.total_steps):
            return None
        measured = evaluation_loss.measure(self._loop, self._questions, self._context.stop_requested)
        if measured is not None:
            self._evaluation_loss = measured
        return measured

    def _write_metrics(self, record: StepRecord) -> None:
        """Never a reason to end a training: a disk that takes no file is named once."""
        if self._metrics_file is None:
            return
        values: dict[str, float | None] = {
            **_values(record),
            "step": record.step,
            "planned_steps": self._loop.plan.total_steps,
            "evaluation_loss": self._evaluation_loss,
            "tokens_total": self._tokens,
            "last_step_timestamp_seconds": time.time(),
        }
        text = prometheus_text.metrics_text(self._context.run_name, values)
        try:
            prometheus_text.write_whole(self._metrics_file, text)
        except OSError as error:
            logger.warning("%s cannot be written and is left out: %s", self._metrics_file, error)
            self._metrics_file = None


def _values(record: StepRecord) -> dict[str, float]:
    """The numbers of a step by name; the evaluation loss only where it was measured."""
    values = {
        "loss": record.loss,
        "learning_rate": record.learning_rate,
        "gradient_norm": record.gradient_norm,
        "tokens_per_second": record.tokens / record.seconds,
        "memory_bytes": float(record.memory_bytes),
    }
    if record.evaluation_loss is not None:
        values["evaluation_loss"] = record.evaluation_loss
    return values


def last_evaluation_loss(log: Sequence[StepRecord]) -> float | None:
    """As last measured; None before."""
    return next((r.evaluation_loss for r in reversed(log) if r.evaluation_loss is not None), None)
