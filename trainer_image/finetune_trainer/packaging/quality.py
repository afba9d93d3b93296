"""What packaging cost: the loss of the trained, the merged and the served model on the same evaluation questions."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.artifacts import Example
from finetune_contract.run_spec import PackagingSpec, QuantizationSpec
from finetune_trainer.errors import LossRaised
from finetune_trainer.evaluation.answers import choose_questions
from finetune_trainer.packaging.llama_cpp import ServedModel
from finetune_trainer.packaging.lora_weights import read_lora
from finetune_trainer.packaging.streamed_loss import as_trained, mean_answer_loss
from finetune_trainer.training.encoding import EncodedExample

logger = logging.getLogger(__name__)

MOST_ROWS = 8
FEWEST_ROWS = 2
MOST_TOKENS = 600
LARGEST_WORK = 8e12
"""Multiplications and additions of one pass; some minutes of two processors."""


@dataclass(frozen=True)
class Losses:
    """Mean cross entropy per answer token, in nats."""

    questions: int
    trained: float
    """Base in 4 bits and the adapter beside it, as training ended."""
    merged: float
    """The 16-bit safetensors."""
    served: float
    """The GGUF file, in llama.cpp."""

    def facts(self) -> dict[str, float | int]:
        """For manifest and model card."""
        return {
            "lossQuestions": self.questions,
            "lossTrained": round(self.trained, 3),
            "lossMerged": round(self.merged, 3),
            "lossServed": round(self.served, 3),
        }


def affordable_rows(rows: Sequence[EncodedExample], weight_count: int) -> list[EncodedExample]:
    """The first rows, as many as can be read in a few minutes by a model of so many weights."""
    limit = min(MOST_TOKENS, LARGEST_WORK / (2 * max(1, weight_count)))
    chosen: list[EncodedExample] = []
    for row in rows[:MOST_ROWS]:
        if len(chosen) >= FEWEST_ROWS and sum(map(len, chosen)) + len(row) > limit:
            break
        chosen.append(row)
    return chosen


def questions_of(examples: Sequence[Example]) -> list[Example]:
    """Those that are measured, in turn from each kind; the same as the evaluation would choose first."""
    return choose_questions(examples, MOST_ROWS)


def measure(
    base_folder: Path,
    adapter_folder: Path,
    merged_folder: Path,
    server: ServedModel,
    rows: Sequence[EncodedExample],
    quantization: QuantizationSpec,
    heartbeat: Callable[[], None],
) -> Losses | None:
    """All three losses; None for a model that cannot be computed a layer at a time."""
    change = as_trained(read_lora(adapter_folder), quantization)
    trained = mean_answer_loss(base_folder, rows, change, heartbeat)
    merged = mean_answer_loss(merged_folder, rows, None, heartbeat)
    if trained is None or merged is None:
        return None
    served: list[float] = []
    for row in rows:
        heartbeat()
        served += server.answer_losses(row.prompt_ids, row.answer_ids)
    losses = Losses(len(rows), trained, merged, statistics.fmean(served))
    logger.info(
        "loss measured: questions=%d trained=%.3f merged=%.3f served=%.3f",
        losses.questions, losses.trained, losses.merged, losses.served,
    )  # fmt: skip
    return losses


def check_losses(losses: Losses, packaging: PackagingSpec) -> None:
    """
    Raises:
        LossRaised: the merged or the served model lost more than the spec allows.
    """
    limit = packaging.max_loss_increase
    rise = max(losses.merged - losses.trained, losses.served - losses.trained, key=_with_nan_largest)
    if rise <= limit:
        return
    kind = packaging.gguf.value
    remedy = "take q8_0, or " if kind.startswith("q4") and losses.merged - losses.trained <= limit else ""
    raise LossRaised(
        f"spec.packaging.gguf: the loss on {losses.questions} evaluation questions is {losses.trained:.3f} in the "
        f"trained model, {losses.merged:.3f} in the merged one and {losses.served:.3f} in the {kind} file; a rise of "
        f"{rise:.3f} is over spec.packaging.maxLossIncrease {limit:g}: {remedy}raise that limit"
    )


def _with_nan_largest(rise: float) -> float:
    return math.inf if math.isnan(rise) else rise
