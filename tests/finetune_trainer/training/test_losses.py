"""Packing must change speed and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from finetune_trainer.training import attention
from finetune_trainer.training.encoding import encode_example
from finetune_trainer.training.losses import row_inputs, summed_loss
from finetune_trainer.training.packing import pack
from tests.finetune_trainer.training.tiny_model import example, save_tiny_model, tiny_tokenizer

CPU = torch.device("cpu")
ROWS = [encode_example(tiny_tokenizer(), example(number)) for number in range(5)]


def reference_loss(model: torch.nn.Module) -> torch.Tensor:
    """Every example alone, by transformers' own attention, summed over its answer tokens."""
    total = torch.zeros(())
    for row in [*ROWS, ROWS[0]]:
        logits = model(input_ids=torch.tensor([row.token_ids])).logits[0]
        start = len(row.prompt_ids)
        total = total + torch.nn.functional.cross_entropy(
            logits[start - 1 : -1], torch.tensor(row.answer_ids), reduction="sum"
        )
    return total


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def check_packed_equals_single(folder: Path) -> None:
    attention.register()
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    packed = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=attention.NAME, dtype=torch.float32
    )
    batch = pack([*ROWS, ROWS[0]])
    assert len(batch) < batch.example_tokens / 2

    expected, found = reference_loss(plain), summed_loss(packed, batch, CPU)

    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(packed, found), gradients(plain, expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


def test_packed_and_shared_examples_give_the_gradients_of_single_ones(tmp_path: Path):
    check_packed_equals_single(save_tiny_model(tmp_path))


def test_soft_caps_and_sliding_windows_are_kept(tmp_path: Path):
    torch.manual_seed(3)
    config = Gemma2Config(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=48,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
        bos_token_id=1,
        eos_token_id=4,
        pad_token_id=2,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)

    check_packed_equals_single(tmp_path)


def test_a_model_with_an_attention_of_its_own_is_run_example_by_example(tmp_path: Path):
    save_tiny_model(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.float32)

    found = summed_loss(model, pack([*ROWS, ROWS[0]]), CPU)

    torch.testing.assert_close(found, reference_loss(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [0, 1])
def test_what_lies_beside_an_example_does_not_change_it(tmp_path: Path, share: int):
    attention.register()
    save_tiny_model(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation=attention.NAME, dtype=torch.float32
    )
    alone = summed_loss(model, pack(ROWS[:1]), CPU)
    neighbours = ROWS[1:2] if share else ROWS[4:]

    together = summed_loss(model, pack([ROWS[0], *neighbours]), CPU)
    others = summed_loss(model, pack(neighbours), CPU)

    torch.testing.assert_close(together, alone + others, rtol=1e-5, atol=1e-5)


def test_inputs_that_were_made_ahead_give_the_same_loss(tmp_path: Path):
    """On a GPU they are sent while the step before is computed."""
    attention.register()
    model = AutoModelForCausalLM.from_pretrained(
        save_tiny_model(tmp_path), attn_implementation=attention.NAME, dtype=torch.float32
    )
    batch, another = pack(ROWS), pack(ROWS[:2])
    inputs = row_inputs(model, batch, CPU)
    expected = summed_loss(model, batch, CPU)

    summed_loss(model, another, CPU)

    assert torch.equal(summed_loss(model, batch, CPU, inputs=inputs), expected)
