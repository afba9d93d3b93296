from __future__ import annotations

import pytest
import torch

from finetune_contract.run_spec import ComputeDtype
from finetune_trainer.training import compute_dtype
from finetune_trainer.training.compute_dtype import choose_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("float32_seconds", "bfloat16_seconds", "expected"),
    [(1.0, 40.0, torch.float32), (2.0, 1.0, torch.bfloat16)],
)
def test_a_cpu_computes_in_the_format_that_was_measured_to_be_faster(
    monkeypatch: pytest.MonkeyPatch, float32_seconds: float, bfloat16_seconds: float, expected: torch.dtype
):
    seconds = {torch.float32: float32_seconds, torch.bfloat16: bfloat16_seconds}
    monkeypatch.setattr(compute_dtype, "_seconds_per_product", seconds.__getitem__)

    assert choose_dtype(ComputeDtype.AUTO, CPU) is expected


def test_a_wish_is_not_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(compute_dtype, "_seconds_per_product")

    assert choose_dtype(ComputeDtype.BFLOAT16, CPU) is torch.bfloat16
    assert choose_dtype(ComputeDtype.FLOAT32, CPU) is torch.float32
