from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from finetune_trainer.training import attention, compiled_layers, row_attention
from finetune_trainer.training.compiled_layers import compile_if_it_proves, filled_length
from finetune_trainer.training.losses import summed_loss
from finetune_trainer.training.packing import pack
from tests.finetune_trainer.training.test_equality import model_of, rows

CPU = torch.device("cpu")


def test_rows_are_filled_up_to_whole_blocks_and_no_further():
    assert [filled_length(tokens) for tokens in (1, 127, 128, 129, 8001)] == [128, 128, 128, 256, 8064]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_layers_stay_compiled_when_the_first_row_has_the_loss_that_it_should_have():
    model, batch = model_of("llama", row_attention.NAME, "cpu"), pack(rows())

    assert compile_if_it_proves(model, lambda: summed_loss(model, batch, CPU), backend="aot_eager")

    assert model.config._attn_implementation == row_attention.NAME
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_machine_that_cannot_compile_trains_as_before_and_says_why(caplog: pytest.LogCaptureFixture):
    model, batch = model_of("llama", row_attention.NAME, "cpu"), pack(rows())
    expected = summed_loss(model_of("llama", attention.NAME, "cpu"), batch, CPU).item()

    def broken(*_: Any) -> Any:
        raise RuntimeError("no C compiler")

    assert not compile_if_it_proves(model, lambda: summed_loss(model, batch, CPU), backend=broken)

    assert "no C compiler" in caplog.text
    assert model.config._attn_implementation == attention.NAME
    assert summed_loss(model, batch, CPU).item() == expected


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_model_is_compiled_also_after_another_one_that_left_no_room_for_graphs(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(compiled_layers, "LARGEST_NUMBER_OF_GRAPHS", 1)
    compiled: list[int] = []

    def counting(graph: Any, _: Any) -> Any:
        compiled.append(len(compiled))
        return graph

    batch = pack(rows())
    for _ in range(2):
        model = model_of("llama", row_attention.NAME, "cpu")
        assert compile_if_it_proves(model, partial(summed_loss, model, batch, CPU), backend=counting)

    assert compiled == [0, 1]


def test_a_wrong_loss_is_not_trusted(caplog: pytest.LogCaptureFixture):
    model = model_of("llama", row_attention.NAME, "cpu")
    told = iter([torch.tensor(2.0), torch.tensor(2.3, requires_grad=True)])

    assert not compile_if_it_proves(model, lambda: next(told), backend="eager")

    assert "its loss differs" in caplog.text
