"""The evaluation loss: when it is measured, that it is right, and that training does not feel it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune_contract.artifact_layout import adapter_folder
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.training import evaluation_loss
from finetune_trainer.training.adapter import add_adapter, load_quantized_base
from finetune_trainer.training.adapter_files import TRAINING_LOG
from finetune_trainer.training.encoding import encode_rows
from finetune_trainer.training.evaluation_loss import EvaluationSchedule, measure, schedule
from finetune_trainer.training.loop import TrainingLoop
from finetune_trainer.training.packing import TrainingPlan
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import (
    RUN_KEY,
    SilentProgress,
    context_for,
    example,
    publish_dataset,
    spec_for,
    tiny_tokenizer,
)

ROWS = [example(number) for number in range(10)]
QUESTIONS = [example(number, kind=ExampleKind.GROUNDED) for number in range(20, 26)]
NEVER_STOP: Callable[[], bool] = lambda: False  # noqa: E731


def ready_loop(base: Path, **training: object) -> TrainingLoop:
    spec = spec_for(base, **training).training
    device = torch.device("cpu")
    model = add_adapter(load_quantized_base(base, spec, device, torch.float32), spec)
    rows = encode_rows(tiny_tokenizer(), ROWS, spec.sequence_length).rows
    plan = TrainingPlan(rows, 50, 4, 2, 6, spec.seed)
    return TrainingLoop(model, plan, spec, device, torch.float32)


def trained(folder: Path, base: Path, **training: object) -> list[dict[str, float]]:
    context = context_for(folder, spec_for(base, **training))
    publish_dataset(context, ROWS, QUESTIONS)
    train(context)
    log = (folder / "store" / adapter_folder(RUN_KEY) / TRAINING_LOG).read_text()
    return [json.loads(line) for line in log.splitlines()]


@pytest.mark.parametrize(
    ("steps", "batch", "asked", "expected"),
    [
        (28, 8, 0, EvaluationSchedule(4, 0)),
        (600, 16, 0, EvaluationSchedule(32, 55)),
        (100_000, 64, 0, EvaluationSchedule(32, 5264)),
        (2, 4, 0, EvaluationSchedule(0, 0)),
        (28, 8, 5, EvaluationSchedule(32, 5)),
    ],
)
def test_the_schedule_follows_the_length_of_the_run(
    steps: int, batch: int, asked: int, expected: EvaluationSchedule
) -> None:
    assert schedule(steps, batch, asked) == expected


@pytest.mark.parametrize("steps", [1, 7, 28, 100, 562, 3000, 40_000])
@pytest.mark.parametrize("batch", [1, 8, 16, 128])
def test_what_nobody_asked_for_costs_two_percent_at_most(steps: int, batch: int) -> None:
    plan = schedule(steps, batch, 0)

    measured = sum(plan.is_due(step, steps) for step in range(1, steps + 1))
    assert measured * plan.questions * evaluation_loss.FORWARD_SHARE <= 0.02 * steps * batch


def test_a_run_is_measured_after_its_first_step_in_between_and_at_its_end() -> None:
    assert [step for step in range(1, 12) if EvaluationSchedule(4, 5).is_due(step, 11)] == [1, 5, 10, 11]
    assert [step for step in range(1, 12) if EvaluationSchedule(4, 0).is_due(step, 11)] == [1, 11]


def test_training_with_and_without_it_gives_the_same_bits(base: Path, tmp_path: Path) -> None:
    with_it = trained(tmp_path / "with", base, evaluateEverySteps=1)
    without = trained(tmp_path / "without", base)

    assert [row["evaluation_loss"] is not None for row in with_it] == [True] * 6
    assert [row["evaluation_loss"] for row in without] == [None] * 6
    for name in ("loss", "gradient_norm", "learning_rate"):
        assert [row[name] for row in with_it] == [row[name] for row in without]
    weights = [
        load_file(tmp_path / side / "store" / adapter_folder(RUN_KEY) / "adapter_model.safetensors")
        for side in ("with", "without")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_it_falls_while_the_model_learns_and_progress_says_it(base: Path, tmp_path: Path) -> None:
    context = context_for(tmp_path, spec_for(base, evaluateEverySteps=3))
    publish_dataset(context, ROWS, QUESTIONS)

    train(context)

    assert isinstance(context.progress, SilentProgress)
    said = [loss for loss in context.progress.evaluation_losses if loss is not None]
    assert len(said) == 6
    assert said[0] == said[1] > said[2] == said[4] > said[5]


def test_it_is_the_mean_over_all_answer_tokens_however_they_are_packed(base: Path) -> None:
    loop = ready_loop(base)
    questions = encode_rows(tiny_tokenizer(), QUESTIONS, 1024).rows

    together = measure(loop, questions, NEVER_STOP)
    alone = [measure(loop, [question], NEVER_STOP) for question in questions]

    weights = [len(question.answer_ids) for question in questions]
    mean = sum(loss * n for loss, n in zip(alone, weights, strict=True) if loss is not None) / sum(weights)
    assert together == pytest.approx(mean, rel=1e-5)


def test_dropout_rests_while_it_measures_and_the_random_state_stays(base: Path) -> None:
    loop = ready_loop(base)
    questions = encode_rows(tiny_tokenizer(), QUESTIONS, 1024).rows
    before, training = torch.get_rng_state(), [module.training for module in loop.model.modules()]

    first = measure(loop, questions, NEVER_STOP)

    assert first == measure(loop, questions, NEVER_STOP)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in loop.model.modules()] == training
    assert all(parameter.grad is None for parameter in loop.model.parameters())


def test_the_quantized_layers_are_never_put_to_rest(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs with AVX512-BF16 a resting 4-bit layer changes its own weights for good."""
    from bitsandbytes.nn.modules import Linear4bit

    loop = ready_loop(base)
    questions = encode_rows(tiny_tokenizer(), QUESTIONS[:1], 1024).rows
    seen: list[bool] = []
    real = loop.batch_loss

    def look(*given: object) -> torch.Tensor:
        seen.extend(module.training for module in loop.model.modules() if isinstance(module, Linear4bit))
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "batch_loss", look)

    measure(loop, questions, NEVER_STOP)

    assert seen
    assert all(seen)


def test_who_is_told_to_stop_measures_no_more(base: Path) -> None:
    loop = ready_loop(base)
    questions = encode_rows(tiny_tokenizer(), QUESTIONS, 1024).rows

    assert measure(loop, questions, lambda: True) is None
    assert all(module.training for module in loop.model.modules())


def test_a_loss_that_is_no_number_is_left_out_and_named(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = ready_loop(base)
    questions = encode_rows(tiny_tokenizer(), QUESTIONS, 1024).rows
    monkeypatch.setattr(loop, "batch_loss", lambda *_: torch.tensor(float("nan")))

    assert measure(loop, questions, NEVER_STOP) is None
    assert "the evaluation loss is nan after step 0" in caplog.text
