"""The loss on a few questions that training never sees, measured now and then while it runs.

It leaves no trace: forward only, no dropout, the random state as it was. Trained weights are the same bits with and
without it. Must not know what becomes of the number.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from finetune_contract.artifact_layout import EVALUATION_FILE
from finetune_contract.artifacts import Example
from finetune_trainer.errors import CudaOutOfMemory
from finetune_trainer.evaluation.answers import choose_questions
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training.encoding import EncodedExample, encode_rows, load_tokenizer
from finetune_trainer.training.loop import TrainingLoop, capture_random_state, restore_random_state
from finetune_trainer.training.packing import pack
from finetune_trainer.training.resting import at_rest

logger = logging.getLogger(__name__)

LARGEST_SHARE = 0.02
"""Measuring takes this part of the training's time at most, unless the spec asks for more."""
FORWARD_SHARE = 1 / 2
"""A row that is only read costs this part of one that is learned: with a frozen base, backward costs as much."""
MOST_QUESTIONS = 32
MOST_MEASUREMENTS = 20


@dataclass(frozen=True)
class EvaluationSchedule:
    """How many questions are measured, and after which steps."""

    questions: int
    every_steps: int
    """0 for the first and the last step only."""

    def is_due(self, step: int, total_steps: int) -> bool:
        """After the first step, when the model is nearly what it was; in between; and at the end."""
        return step in (1, total_steps) or bool(self.every_steps and step % self.every_steps == 0)


def schedule(total_steps: int, effective_batch_size: int, every_steps: int) -> EvaluationSchedule:
    """What the spec asks for; with `every_steps` 0 as much as LARGEST_SHARE of the time allows.

    A short run measures fewer questions, at its beginning and end; a long one measures more often.
    """
    if every_steps:
        return EvaluationSchedule(MOST_QUESTIONS, every_steps)
    affordable = int(total_steps * effective_batch_size * LARGEST_SHARE / FORWARD_SHARE)
    questions = min(MOST_QUESTIONS, affordable // 2)
    between = min(MOST_MEASUREMENTS, affordable // questions) - 2 if questions else 0
    if between <= 0:
        return EvaluationSchedule(questions, 0)
    return EvaluationSchedule(questions, max(1, math.ceil(total_steps / (between + 1))))


def schedule_to_compare(total_steps: int, effective_batch_size: int, every_steps: int) -> EvaluationSchedule:
    """The same, with all questions in runs of any length, so that their losses can be compared."""
    return replace(schedule(total_steps, effective_batch_size, every_steps), questions=MOST_QUESTIONS)


def read_questions(context: StageContext, base_folder: Path, number: int) -> tuple[EncodedExample, ...]:
    """The first questions that the evaluation will ask, as far as they fit; none when the dataset keeps none back."""
    path = context.work_folder / "dataset" / EVALUATION_FILE
    if not number or not path.exists():
        return ()
    with path.open(encoding="utf-8") as lines:
        examples = choose_questions([Example.model_validate_json(line) for line in lines], number)
    tokenizer = load_tokenizer(base_folder, context.spec.dataset.prompt_format)
    return encode_rows(tokenizer, examples, context.spec.training.sequence_length).rows


def measure(
    loop: TrainingLoop, questions: Sequence[EncodedExample], stop_requested: Callable[[], bool]
) -> float | None:
    """Mean loss over the answer tokens; None when told to stop, without room on the GPU, or when it is no number.

    Over a base that is dealt out none stops in the middle: the others would wait for its part of the layers.
    """
    if loop.window is not None:
        return measure_or_fail(loop, questions, lambda: False)
    try:
        return measure_or_fail(loop, questions, stop_requested)
    except CudaOutOfMemory as error:
        logger.warning("the evaluation loss does not fit the GPU beside the training: %s", error)
        return None


def measure_or_fail(
    loop: TrainingLoop, questions: Sequence[EncodedExample], stop_requested: Callable[[], bool]
) -> float | None:
    """Mean loss over the answer tokens; None when told to stop, or when it is no number.

    Raises:
        CudaOutOfMemory: there is no room for it on the GPU.
    """
    ordered = sorted(questions, key=lambda question: (question.token_ids, question.id))
    size = loop.plan.micro_batch_size
    total = 0.0
    random_state = capture_random_state()
    try:
        with at_rest(loop.model):
            for start in range(0, len(ordered), size):
                if stop_requested():
                    return None
                row = pack(ordered[start : start + size])
                try:
                    total += float(loop.batch_loss(row, 1))
                except torch.OutOfMemoryError as error:
                    raise loop.out_of_memory(len(row)) from error
    finally:
        restore_random_state(random_state)
    mean = total / max(1, sum(len(question.answer_ids) for question in ordered))
    if not math.isfinite(mean):
        logger.warning("the evaluation loss is %s after step %d", mean, loop.state.step)
        return None
    return mean
