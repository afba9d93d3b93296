from __future__ import annotations

from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.training.adapter import add_adapter, linear_layer_names, load_quantized_base
from tests.finetune_trainer.training.measured_memory import save_model
from tests.finetune_trainer.training.tiny_model import save_model_that_sees

CPU = torch.device("cpu")


def adapted(folder: Path, **lora: object) -> torch.nn.Module:
    training = TrainingSpec.model_validate({"lora": {"rank": 16, "alpha": 32, **lora}})
    return add_adapter(load_quantized_base(folder, training, CPU, torch.float32), training)


def scales(model: torch.nn.Module) -> set[float]:
    return {m.scaling["default"] for m in model.modules() if isinstance(m, LoraLayer)}


def test_an_adapter_is_scaled_by_alpha_over_its_rank_or_over_the_root_of_it(tmp_path: Path):
    save_model(tmp_path, "llama")

    assert scales(adapted(tmp_path)) == {32 / 16}
    assert scales(adapted(tmp_path, rankStabilized=True)) == {32 / 16**0.5}


def test_every_linear_layer_of_the_decoder_gets_an_adapter_and_the_head_none(tmp_path: Path):
    save_model(tmp_path, "gemma2")
    training = TrainingSpec()
    base = load_quantized_base(tmp_path, training, CPU, torch.float32)
    found = linear_layer_names(base)

    assert len(found) == 4 * 7
    assert not any("lm_head" in name or "embed" in name for name in found)
    model = add_adapter(base, training)
    learning = {name.split(".lora_")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {f"base_model.model.{name}" for name in found}


def test_a_model_that_also_sees_gets_adapters_on_its_decoder_alone(tmp_path: Path):
    save_model_that_sees(tmp_path)
    base = load_quantized_base(tmp_path, TrainingSpec(), CPU, torch.float32)

    found = linear_layer_names(base)

    assert type(base).__name__ == "Gemma3ForConditionalGeneration"
    assert len(found) == 2 * 7
    assert all("language_model.layers." in name for name in found)
