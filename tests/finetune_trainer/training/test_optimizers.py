from __future__ import annotations

from pathlib import Path

import pytest
import torch

from finetune_contract.run_spec import OptimizerKind
from finetune_trainer.training.optimizers import (
    make_optimizer,
    restore_state,
    saved_state,
    state_fits,
    step_if_finite,
)
from tests.finetune_trainer.training.tiny_run import assert_same_run, run


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(3)
    return [torch.nn.Parameter(torch.randn(64, 80)), torch.nn.Parameter(torch.randn(4, 8))]


def take_steps(optimizer: torch.optim.Optimizer, trained: list[torch.nn.Parameter], first: int) -> None:
    for step in range(first, first + 3):
        torch.manual_seed(step)
        for parameter in trained:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


@pytest.mark.parametrize("kind", OptimizerKind)
def test_an_optimizer_that_is_restored_goes_on_with_the_same_bits(kind: OptimizerKind):
    trained, others = parameters(), parameters()
    optimizer = make_optimizer(kind, trained, 0.01)
    take_steps(optimizer, trained, first=0)
    for other, parameter in zip(others, trained, strict=True):
        other.data.copy_(parameter)
    restored = make_optimizer(kind, others, 0.01)

    for other, parameter in zip(others, trained, strict=True):
        saved = {name: value.clone() for name, value in saved_state(optimizer, parameter).items()}
        assert state_fits(other, saved)
        restore_state(restored, other, saved)
    take_steps(optimizer, trained, first=3)
    take_steps(restored, others, first=3)

    for other, parameter in zip(others, trained, strict=True):
        torch.testing.assert_close(other, parameter, rtol=0, atol=0)


@pytest.mark.parametrize("kind", OptimizerKind)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_step_with_a_number_that_is_not_finite_is_not_taken(kind: OptimizerKind, number: float):
    trained, others = parameters(), parameters()
    optimizer, undisturbed = make_optimizer(kind, trained, 0.01), make_optimizer(kind, others, 0.01)
    take_steps(optimizer, trained, first=0)
    take_steps(undisturbed, others, first=0)

    step_if_finite(optimizer, torch.tensor(2.0), torch.tensor(number))

    for other, parameter in zip(others, trained, strict=True):
        torch.testing.assert_close(parameter, other, rtol=0, atol=0)
        torch.testing.assert_close(saved_state(optimizer, parameter), saved_state(undisturbed, other))
    step_if_finite(optimizer, torch.tensor(2.0), torch.tensor(0.5))
    undisturbed.step()
    for other, parameter in zip(others, trained, strict=True):
        torch.testing.assert_close(parameter, other, rtol=0, atol=0)


def test_moments_of_8_bits_take_a_quarter_and_walk_the_same_way():
    trained, others = parameters(), parameters()
    wide, narrow = (
        make_optimizer(kind, given, 0.01)
        for kind, given in ((OptimizerKind.ADAMW, trained), (OptimizerKind.ADAMW_8BIT, others))
    )
    take_steps(wide, trained, first=0)
    take_steps(narrow, others, first=0)

    assert saved_state(narrow, others[0])["state1"].dtype == torch.uint8
    assert saved_state(narrow, others[1])["state1"].dtype == torch.float32  # too small to be worth it
    torch.testing.assert_close(others[0], trained[0], rtol=0, atol=5e-3)
    torch.testing.assert_close(others[1], trained[1], rtol=0, atol=1e-6)


def test_moments_of_another_matrix_or_kind_do_not_fit():
    [parameter, other] = parameters()
    optimizer = make_optimizer(OptimizerKind.ADAMW, [parameter, other], 0.01)
    take_steps(optimizer, [parameter, other], first=0)

    assert not state_fits(parameter, saved_state(optimizer, other))
    assert not state_fits(parameter, {})


def test_a_run_with_8_bit_moments_goes_on_after_a_stop(base: Path, tmp_path: Path):
    from finetune_trainer.errors import Preempted

    settings = {"optimizer": "adamw-8bit", "maxSteps": 3, "lora": {"rank": 40, "alpha": 8}}
    run(tmp_path / "whole", base, **settings)
    files = sum(path.is_file() for path in base.iterdir())

    with pytest.raises(Preempted):
        run(tmp_path / "stopped", base, stop_after=files + 3, **settings)
    report = run(tmp_path / "stopped", base, **settings)

    assert report.training is not None
    assert report.training.resumed_from_step > 0
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
