"""Which models examples may lie side by side for, and what becomes of the others. Small random models, whole stages."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.errors import BaseModelRejected, DataRejected
from finetune_trainer.training import attention, packing_proof
from finetune_trainer.training.adapter import (
    add_adapter,
    attention_name,
    load_quantized_base,
    trainable_parameters,
)
from finetune_trainer.training.encoding import EncodedExample
from finetune_trainer.training.losses import summed_loss
from finetune_trainer.training.packing import pack
from finetune_trainer.training.packing_proof import use_own_attention, why_not_packed
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import context_for, publish_dataset, spec_for, tiny_tokenizer
from tests.finetune_trainer.training.tiny_run import ROWS

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHORT_CONVOLUTIONS = {"layer_types": ["conv", "full_attention"]}
EXAMPLES = [
    EncodedExample("short", (3, 4, 5, 6, 7, 8), (9, 10)),
    EncodedExample("long", tuple(range(11, 41)), (41, 42, 43)),
]


def save_base(folder: Path, family: str, **fields: Any) -> Path:
    torch.manual_seed(9)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZES, **fields}))
    for parameter in model.parameters():  # far from the flat start, so that what a layer sees matters
        if parameter.dim() > 1:
            parameter.data.mul_(2)
    model.save_pretrained(folder)
    return folder


def model_of(folder: Path, family: str, **fields: Any) -> PeftModel:
    training = TrainingSpec()
    base = load_quantized_base(save_base(folder, family, **fields), training, CPU, torch.float32)
    return add_adapter(base, training)


@pytest.mark.parametrize("family", ["llama", "granite", "mixtral", "gpt2"])
def test_a_model_that_is_attention_and_nothing_else_is_packed(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(packing_proof, "PROVEN", frozenset())
    model = model_of(tmp_path, family)

    assert why_not_packed(model, EXAMPLES) == ""
    assert attention_name(model) == attention.NAME
    assert model.training


@pytest.mark.parametrize(
    ("family", "fields", "why"),
    [
        ("lfm2", SHORT_CONVOLUTIONS, "an example changes the one behind it"),
        ("qwen3_5_text", {}, "an example changes the one behind it"),
        ("gpt_oss", {}, "its attention is another one"),
        ("stablelm", {}, "missing 1 required keyword-only argument: 'branches'"),
    ],
    ids=["convolution", "recurrence", "sinks", "own-arguments"],
)
def test_a_model_that_would_mix_examples_is_not_packed_and_learns_of_each_alone(
    tmp_path: Path, family: str, fields: dict[str, Any], why: str
):
    model = model_of(tmp_path, family, **fields)

    assert why in why_not_packed(model, EXAMPLES)

    use_own_attention(model)
    together = summed_loss(model, pack(EXAMPLES), CPU)
    alone = sum(summed_loss(model, pack([example]), CPU) for example in EXAMPLES)
    torch.testing.assert_close(together, alone)
    together.backward()  # type: ignore[no-untyped-call]
    assert any(bool(p.grad.any()) for p in trainable_parameters(model).values() if p.grad is not None)


def a_stage(folder: Path, family: str, **fields: Any) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(save_base(folder / "base", family, **{"vocab_size": len(tokenizer), **fields}))
    context = context_for(folder, spec_for(folder / "base", maxSteps=2))
    publish_dataset(context, ROWS)
    return context


def test_a_stage_whose_model_cannot_be_packed_says_so_and_trains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        report = train(a_stage(tmp_path, "lfm2", **SHORT_CONVOLUTIONS))

    assert report.training is not None
    assert report.training.steps == 2
    assert "cannot lie side by side and are run one by one" in caplog.text


@pytest.mark.parametrize(
    ("family", "fields", "error", "words"),
    [
        (
            "gpt2",
            {"n_positions": 64},
            DataRejected,
            r"sequenceLength: .* the base model reads 64; set it to 64",
        ),
        (
            "llama",
            {"max_position_embeddings": 64},
            DataRejected,
            r"sequenceLength: .* the base model reads 64",
        ),
        ("llama", {"vocab_size": 300}, BaseModelRejected, r"the model's table has 300"),
        (
            "falcon_h1",
            {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_ssm": 128, "mamba_d_state": 16},
            BaseModelRejected,
            r"spec\.baseModel\.uri: no adapter can be put on the model",
        ),
    ],
    ids=["learnt-positions", "rotary-positions", "tokens-without-a-row", "unsupported-layers"],
)
def test_what_the_model_cannot_be_given_is_told_before_the_first_step(
    tmp_path: Path, family: str, fields: dict[str, Any], error: type[Exception], words: str
):
    with pytest.raises(error, match=words):
        train(a_stage(tmp_path, family, **fields))
