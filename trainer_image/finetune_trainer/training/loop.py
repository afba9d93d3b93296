"""The training loop: accumulate, clip, step; stop when told to. Must not know stores or where rows come from.

The loop's state after any step can be saved and taken up again with the same losses to follow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.errors import CudaOutOfMemory, Diverged
from finetune_trainer.training.adapter import trainable_parameters
from finetune_trainer.training.divergence import WINDOW, Divergence, LossWatch
from finetune_trainer.training.losses import RowInputs, row_inputs, summed_loss
from finetune_trainer.training.optimizers import make_optimizer, step_if_finite
from finetune_trainer.training.packing import PackedBatch, TrainingPlan
from finetune_trainer.training.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from finetune_trainer.training.dealt_base import LayerWindow

LOWEST_RATE_SHARE = 0.05
"""Cosine decay ends at this part of the peak."""
LARGEST_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class StepRecord:
    """One line of the training log."""

    step: int
    """1 for the first."""
    loss: float
    """Mean over the step's answer tokens."""
    learning_rate: float
    gradient_norm: float
    tokens: int
    """Tokens of the examples, prompt and answer."""
    seconds: float
    evaluation_loss: float | None = None
    """Measured after this step; None when it was not."""
    memory_bytes: int = 0
    """Most GPU memory used so far, or the process's memory on a CPU."""
    resumed: bool = False
    """The first step after going on from a checkpoint."""
    checkpoint: bool = False
    """A checkpoint was made after it."""


@dataclass
class LoopState:
    """What a checkpoint holds beside the tensors."""

    step: int = 0
    """Steps done."""
    log: list[StepRecord] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens trained."""
        return sum(record.tokens for record in self.log)

    @property
    def seconds(self) -> float:
        """Time spent in steps, over all attempts."""
        return sum(record.seconds for record in self.log)

    def mark_checkpoint(self, made: bool = True) -> None:
        """Say in the log whether a checkpoint was made after the last step."""
        self.log[-1] = replace(self.log[-1], checkpoint=made)


@dataclass(frozen=True)
class _Ahead:
    """A step's rows, and, where they were made ahead, the inputs of those that this process learns."""

    step: int
    micro_batches: Sequence[PackedBatch] = ()
    inputs: Sequence[RowInputs | None] = ()


def warmup_steps(total_steps: int, warmup_ratio: float) -> int:
    """Steps before the peak."""
    return math.ceil(total_steps * warmup_ratio)


def learning_rate(step: int, total_steps: int, peak: float, warmup_ratio: float) -> float:
    """Linear warm-up, then a cosine down to LOWEST_RATE_SHARE of the peak. `step` counts from 0."""
    warmup = warmup_steps(total_steps, warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, total_steps - warmup)
    return peak * (LOWEST_RATE_SHARE + (1 - LOWEST_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * share)))


class TrainingLoop:
    """Model, optimizer and random state of one run."""

    def __init__(
        self,
        model: torch.nn.Module,
        plan: TrainingPlan,
        training: TrainingSpec,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks = ALONE,
        window: LayerWindow | None = None,
    ) -> None:
        """`window` into a base that is dealt out."""
        self.model = model
        self.window = window
        self.ranks = ranks
        self.plan = plan
        self.training = training
        self.device = device
        self.dtype = dtype
        self.state = LoopState()
        self._ahead = _Ahead(step=-1)
        self.parameters = trainable_parameters(model)
        self.optimizer = make_optimizer(training.optimizer, self.parameters.values(), training.learning_rate)
        torch.manual_seed(training.seed)
        self.random_state = capture_random_state()

    def steps(self, stop_requested: Callable[[], bool]) -> Iterator[StepRecord]:
        """Run what is left of the plan, a record a step; ends early when told to stop.

        When it ends early, parameters, optimizer and random state are those after the last whole step.

        Raises:
            Diverged: the loss is no number any more, or far above what it was for long.
            CudaOutOfMemory: a step does not fit the GPU.
        """
        watch = LossWatch(warmup_steps(self.plan.total_steps, self.training.warmup_ratio))
        for earlier in self.state.log:
            watch.see(earlier.loss)
        while self.state.step < self.plan.total_steps:
            if self.ranks.any(stop_requested(), self.device):
                return
            record = self._step(stop_requested)
            if record is None:
                return
            self.state.step += 1
            self.state.log.append(record)
            self.random_state = capture_random_state()
            if (found := watch.see(record.loss)) is not None:
                raise self._diverged(found)
            yield record

    def _step(self, stop_requested: Callable[[], bool]) -> StepRecord | None:
        """One optimizer step; None, with nothing changed, when told to stop between micro-batches."""
        start = time.perf_counter()
        step = self.state.step
        rate = learning_rate(
            step, self.plan.total_steps, self.training.learning_rate, self.training.warmup_ratio
        )
        self.ranks.seed(self.training.seed, step)
        ahead = self._ahead if self._ahead.step == step else _Ahead(step, self.plan.step_micro_batches(step))
        micro_batches = ahead.micro_batches
        try:
            total = self._accumulate(ahead, stop_requested)
            if total is None:
                return None
            norm_on_device = torch.nn.utils.clip_grad_norm_(self.parameters.values(), LARGEST_GRADIENT_NORM)
            self._prepare(step + 1)  # while a GPU still computes; what follows waits for it
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            step_if_finite(self.optimizer, total, norm_on_device)
            mean_loss, norm = float(total), float(norm_on_device)
            if not math.isfinite(mean_loss):
                raise Diverged(
                    f"spec.training.learningRate: the loss is {mean_loss} at step {step + 1} (rate {rate:.2g}); "
                    "lower the learning rate"
                )
            if not math.isfinite(norm):
                raise Diverged(
                    f"spec.training.learningRate: the gradient's norm is {norm} at step {step + 1} "
                    f"(loss {mean_loss:.3g}, rate {rate:.2g}); lower the learning rate"
                )
        except torch.OutOfMemoryError as error:
            raise self.out_of_memory(max(len(batch) for batch in micro_batches)) from error
        tokens = sum(batch.example_tokens for batch in micro_batches)
        return StepRecord(step + 1, mean_loss, rate, norm, tokens, time.perf_counter() - start)

    def _accumulate(self, ahead: _Ahead, stop_requested: Callable[[], bool]) -> Tensor | None:
        """Gradients of the effective batch's mean loss over its answer tokens, and that loss, on the device.

        Of several processes none stops in the middle: the others would wait for its gradients.
        """
        all_answer_tokens = sum(len(batch.labels) for batch in ahead.micro_batches)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        shares = self.ranks.shares(ahead.micro_batches)
        own = shares[self.ranks.number]
        for number, batch in enumerate(own):
            if number and self.ranks.count == 1 and stop_requested():
                return None
            inputs = ahead.inputs[number] if ahead.inputs else None
            loss = self.batch_loss(batch, all_answer_tokens, self.training.embedding_noise, inputs)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if self.window is not None:
            for _ in range(max(map(len, shares)) - len(own)):
                self.window.follow()
        return self.ranks.add_up(self.parameters.values(), total)

    def _prepare(self, step: int) -> None:
        """Rows of the next step, and on a GPU what they are there, so that it need not wait for them."""
        if step >= self.plan.total_steps:
            return
        micro_batches = self.plan.step_micro_batches(step)
        inputs: list[RowInputs | None] = []
        if self.device.type == "cuda":
            own = self.ranks.shares(micro_batches)[self.ranks.number]
            inputs = [row_inputs(self.model, batch, self.device) for batch in own]
        self._ahead = _Ahead(step, micro_batches, inputs)

    def batch_loss(
        self, batch: PackedBatch, divisor: int, noise: float = 0.0, inputs: RowInputs | None = None
    ) -> Tensor:
        """Loss summed over the row's answer tokens and divided, in the loop's number format."""
        with self.autocast():
            return summed_loss(self.model, batch, self.device, divisor, noise, inputs)

    def autocast(self) -> AbstractContextManager[object]:
        """The number format that forward passes run in."""
        if self.device.type == "cuda" and self.dtype is torch.bfloat16:
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _diverged(self, found: Divergence) -> Diverged:
        return Diverged(
            f"spec.training.learningRate: the loss diverges: its median over steps {found.first_step} to "
            f"{found.last_step} is {found.loss:.3g}, and the lowest mean over {WINDOW} steps was {found.best:.3g} "
            f"(up to step {found.best_step}); lower the learning rate ({self.training.learning_rate:.2g}), "
            f"or raise warmupRatio ({self.training.warmup_ratio:g})"
        )

    def out_of_memory(self, row_tokens: int) -> CudaOutOfMemory:
        """The error of a row that does not fit, with the numbers."""
        free, whole = torch.cuda.mem_get_info(self.device)
        gib = 2**30
        return CudaOutOfMemory(
            f"spec.training.microBatchSize: {self.plan.micro_batch_size} "
            f"examples ({row_tokens} tokens) need more than the GPU's {whole / gib:.1f} GiB "
            f"({free / gib:.1f} GiB free, {torch.cuda.max_memory_allocated(self.device) / gib:.1f} GiB used at most); "
            "halve microBatchSize, then set gradientCheckpointing: true, then shorten sequenceLength"
        )


def capture_random_state() -> dict[str, Tensor]:
    """States of torch's random generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_state(states: dict[str, Tensor]) -> None:
    """The reverse of capture_random_state."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
