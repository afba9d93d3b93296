"""What merging and quantising cost is measured on the same rows, and bounded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_contract.run_spec import GgufType, PackagingSpec, PromptFormat, QuantizationSpec, TrainingSpec
from finetune_trainer.errors import LossRaised
from finetune_trainer.packaging.lora_weights import read_lora
from finetune_trainer.packaging.quality import MOST_ROWS, Losses, affordable_rows, check_losses
from finetune_trainer.packaging.streamed_loss import as_trained, mean_answer_loss
from finetune_trainer.training.adapter import add_adapter, load_quantized_base
from finetune_trainer.training.encoding import EncodedExample, encode_rows, load_tokenizer
from finetune_trainer.training.losses import summed_loss
from finetune_trainer.training.packing import pack
from tests.finetune_trainer.training.measured_memory import save_model
from tests.finetune_trainer.training.tiny_model import example, save_tiny_model

ROW = EncodedExample("a", tuple(range(90)), tuple(range(10)))


def rows_for(folder: Path) -> tuple[EncodedExample, ...]:
    tokenizer = load_tokenizer(folder, PromptFormat.CHAT)
    return encode_rows(tokenizer, [example(0), example(5, "Is it?"), example(3)], 1024).rows


def one_by_one(model: Any, rows: tuple[EncodedExample, ...]) -> float:
    losses = []
    for row in rows:
        logits = model(torch.tensor([row.token_ids])).logits[0]
        count = len(row.answer_ids)
        losses.append(
            torch.nn.functional.cross_entropy(
                logits[-count - 1 : -1], torch.tensor(row.answer_ids), reduction="none"
            )
        )
    return float(torch.cat(losses).mean())


def test_the_loss_from_the_files_is_that_of_the_loaded_model(tmp_path: Path):
    base = save_tiny_model(tmp_path)
    rows = rows_for(base)
    heard: list[int] = []

    found = mean_answer_loss(base, rows, heartbeat=lambda: heard.append(1))

    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        assert found == pytest.approx(one_by_one(model, rows), abs=1e-5)
    assert len(heard) == 2 * 7 + 1


@pytest.mark.parametrize("shape", ["smollm2", "qwen2", "gemma2"])
def test_it_holds_for_tied_embeddings_biases_soft_caps_and_sliding_windows(tmp_path: Path, shape: str):
    save_model(tmp_path, shape)
    rows = (
        EncodedExample("a", tuple(range(3, 90)), (7, 8, 9)),
        EncodedExample("b", tuple(range(40, 60)), (11, 12)),
    )

    found = mean_answer_loss(tmp_path, rows)

    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
        assert found == pytest.approx(one_by_one(model, rows), abs=1e-4)


def test_the_trained_model_is_the_4_bit_base_with_its_adapter(tmp_path: Path):
    base = save_tiny_model(tmp_path / "base")
    rows = rows_for(base)
    training = TrainingSpec()
    adapted = add_adapter(load_quantized_base(base, training, torch.device("cpu"), torch.float32), training)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    lora = read_lora(tmp_path / "adapter")

    found = mean_answer_loss(base, rows, as_trained(lora, QuantizationSpec()))

    with torch.inference_mode():
        total = summed_loss(adapted, pack(rows), torch.device("cpu"))
    expected = float(total) / sum(len(row.answer_ids) for row in rows)
    assert found == pytest.approx(expected, abs=2e-3)
    assert found != pytest.approx(mean_answer_loss(base, rows), abs=2e-3)


def test_a_model_with_experts_in_one_large_tensor_is_not_measured(tmp_path: Path):
    config = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    mixture = AutoConfig.for_model(
        "mixtral", vocab_size=64, num_key_value_heads=2, num_local_experts=2, **config
    )
    AutoModelForCausalLM.from_config(mixture).save_pretrained(tmp_path)

    assert mean_answer_loss(tmp_path, (EncodedExample("a", (1, 2), (3,)),)) is None


def test_a_rise_within_the_limit_passes():
    check_losses(Losses(8, 1.0, 1.05, 1.19), PackagingSpec())
    check_losses(Losses(8, 1.0, 0.5, 0.6), PackagingSpec(max_loss_increase=0))


def test_a_file_that_lost_too_much_is_refused_with_the_numbers():
    packaging = PackagingSpec(gguf=GgufType.Q4_0)

    with pytest.raises(LossRaised) as refusal:
        check_losses(Losses(8, 1.0, 1.05, 1.3), packaging)

    assert str(refusal.value) == (
        "spec.packaging.gguf: the loss on 8 evaluation questions is 1.000 in the trained model, 1.050 in the merged "
        "one and 1.300 in the q4_0 file; a rise of 0.300 is over spec.packaging.maxLossIncrease 0.2: take q8_0, or "
        "raise that limit"
    )


def test_a_loss_from_merging_does_not_blame_the_file():
    with pytest.raises(LossRaised, match=r"maxLossIncrease 0\.2: raise that limit"):
        check_losses(Losses(8, 1.0, 1.5, 1.3), PackagingSpec(gguf=GgufType.Q4_0))


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(LossRaised):
        check_losses(Losses(8, 1.0, 1.0, float("nan")), PackagingSpec())


def test_small_models_read_more_rows_than_large_ones():
    rows = [ROW] * 50

    assert len(affordable_rows(rows[:5], 10_000_000)) == 5
    assert len(affordable_rows(rows, 10_000_000)) == min(6, MOST_ROWS)
    assert len(affordable_rows(rows, 13_000_000_000)) == 3
    assert len(affordable_rows(rows, 70_000_000_000)) == 2
