"""The merged model is what peft makes of base and adapter, and no more than a weight is in memory for it."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from finetune_trainer.errors import BaseModelRejected, Diverged, Preempted, StoreRejected
from finetune_trainer.packaging.merge import save_merged
from finetune_trainer.training.adapter import linear_layer_names
from tests.finetune_trainer.training.tiny_model import save_model_that_sees, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}


def save_base(folder: Path, dtype: torch.dtype, shard: str = "1GB", **shape: object) -> PreTrainedModel:
    config = AutoConfig.for_model(
        **{"vocab_size": len(TOKENIZER), "bos_token_id": 1, "eos_token_id": 4, **shape}
    )
    torch.manual_seed(3)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).to(dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    TOKENIZER.save_pretrained(folder)
    return model


def save_adapter(folder: Path, base: PreTrainedModel, **settings: object) -> Path:
    with (
        warnings.catch_warnings()
    ):  # peft says what it sets for GPT-2's layers, and asks for a renamed property
        warnings.simplefilter("ignore")
        config = LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=linear_layer_names(base),
            init_lora_weights=False,
            task_type="CAUSAL_LM",
            **settings,
        )
        adapted: Any = get_peft_model(base, config)
        adapted.save_pretrained(folder, save_embedding_layers=False)
        adapted.unload()
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def merged_by_peft(base: Path, adapter: Path, dtype: torch.dtype) -> PreTrainedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        merged: PreTrainedModel = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return merged


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ({**LLAMA, "tie_word_embeddings": True}, {}),
        ({**LLAMA, "tie_word_embeddings": False}, {"use_rslora": True}),
        (GPT2, {}),
    ],
    ids=["tied", "rank-stabilised", "transposed-layers"],
)
def test_the_merged_weights_are_those_of_peft(
    tmp_path: Path, shape: dict[str, Any], settings: dict[str, Any]
):
    base = save_base(tmp_path / "base", torch.float32, **shape)
    adapter = save_adapter(tmp_path / "adapter", base, **settings)

    save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")

    expected = merged_by_peft(tmp_path / "base", adapter, torch.float32)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert found.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name], rtol=1e-6, atol=1e-6)
    assert weights_of(tmp_path / "merged").keys() == weights_of(tmp_path / "base").keys()


def test_an_adapter_goes_into_the_decoder_of_a_model_that_also_sees(tmp_path: Path):
    adapter = save_adapter(tmp_path / "adapter", save_model_that_sees(tmp_path / "base"))

    save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")

    expected = merged_by_peft(tmp_path / "base", adapter, torch.float32).state_dict()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)
    before, after = weights_of(tmp_path / "base"), weights_of(tmp_path / "merged")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert len(changed) == 2 * 7


def test_a_16_bit_weight_is_rounded_once(tmp_path: Path):
    base = save_base(tmp_path / "base", torch.bfloat16, **LLAMA)
    adapter = save_adapter(tmp_path / "adapter", base)

    save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")

    exact = merged_by_peft(tmp_path / "base", adapter, torch.float32).state_dict()
    for name, tensor in weights_of(tmp_path / "merged").items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor, exact[name].bfloat16(), rtol=2**-8, atol=1e-6)
        wrong = (tensor != exact[name].bfloat16()).float().mean()
        assert wrong < 0.001, name  # another order of summation may turn a tie


def test_shards_stay_as_the_base_has_them(tmp_path: Path):
    base = save_base(tmp_path / "base", torch.bfloat16, shard="60KB", **LLAMA)
    adapter = save_adapter(tmp_path / "adapter", base)

    save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")

    shards = {path.name: path.stat().st_size for path in (tmp_path / "base").glob("*.safetensors")}
    assert len(shards) > 2
    assert {p.name: p.stat().st_size for p in (tmp_path / "merged").glob("*.safetensors")} == shards
    index = "model.safetensors.index.json"
    assert (tmp_path / "merged" / index).read_bytes() == (tmp_path / "base" / index).read_bytes()


def in_two_shards(folder: Path, weights: dict[str, torch.Tensor], doubled: str = "") -> None:
    """With an index; the tensor `doubled` is in both."""
    names = sorted(weights)
    halves = [set(names[: len(names) // 2]), set(names[len(names) // 2 :])]
    weight_map = {}
    for number, half in enumerate(halves, start=1):
        shard = f"model-{number:05}-of-00002.safetensors"
        held = half | ({doubled} if doubled else set())
        save_file({name: weights[name] for name in held}, folder / shard, {"format": "pt"})
        weight_map |= dict.fromkeys(half, shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "left_over", ["shards-of-another-count", "shards-beside-the-whole", "other-precision"]
)
def test_weights_that_transformers_leaves_alone_are_neither_merged_nor_published(
    tmp_path: Path, left_over: str
):
    base = save_base(tmp_path / "base", torch.float32, **LLAMA)
    adapter = save_adapter(tmp_path / "adapter", base)
    whole = tmp_path / "base" / "model.safetensors"
    weights = load_file(whole)
    expected = {"model.safetensors"}
    if left_over == "other-precision":
        halves = {name: tensor.half() for name, tensor in weights.items()}
        save_file(halves, whole.with_name("model.fp16.safetensors"), {"format": "pt"})
    else:
        in_two_shards(tmp_path / "base", weights)
    if left_over == "shards-of-another-count":
        whole.unlink()
        save_file(weights, whole.with_name("model-00001-of-00003.safetensors"), {"format": "pt"})
        save_file(weights, whole.with_name("model-00003-of-00003.safetensors"), {"format": "pt"})
        expected = {f"model-{number:05}-of-00002.safetensors" for number in (1, 2)}

    save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")

    assert {path.name for path in (tmp_path / "merged").glob("*.safetensors")} == expected
    assert (tmp_path / "merged" / "model.safetensors.index.json").is_file() == (len(expected) > 1)
    exact = merged_by_peft(tmp_path / "base", adapter, torch.float32).state_dict()
    for name, tensor in weights_of(tmp_path / "merged").items():
        torch.testing.assert_close(tensor, exact[name], rtol=1e-6, atol=1e-6)


def test_a_weight_that_lies_in_two_files_is_refused(tmp_path: Path):
    save_base(tmp_path / "base", torch.float32, **LLAMA)
    whole = tmp_path / "base" / "model.safetensors"
    doubled = "model.layers.0.mlp.up_proj.weight"
    in_two_shards(tmp_path / "base", load_file(whole), doubled)
    whole.unlink()

    with pytest.raises(
        BaseModelRejected, match=f"{doubled} is in model-00001.* and in model-00002.*save_pretrained"
    ):
        save_merged(tmp_path / "base", None, TOKENIZER, tmp_path / "merged")


def test_without_an_adapter_the_base_is_copied(tmp_path: Path):
    save_base(tmp_path / "base", torch.bfloat16, **LLAMA)

    save_merged(tmp_path / "base", None, TOKENIZER, tmp_path / "merged")

    name = "model.safetensors"
    assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()


def test_the_token_that_ended_the_taught_answers_leads_those_that_stop_the_model(tmp_path: Path):
    save_base(tmp_path / "base", torch.bfloat16, **{**LLAMA, "eos_token_id": 2})

    save_merged(tmp_path / "base", None, TOKENIZER, tmp_path / "merged")

    settings = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [TOKENIZER.eos_token_id, 2]


def peak_growth_bytes(work: Callable[[], None]) -> int:
    """By how much this process's resident memory exceeded what it was before, as the kernel counts it."""

    def resident(field: str) -> int:
        found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def test_merging_needs_less_memory_than_a_shard(tmp_path: Path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    save_base(base, torch.bfloat16, **{**LLAMA, "num_hidden_layers": 1})
    (base / "model.safetensors").unlink()
    adapter.mkdir()
    size, layers_of_a_shard = 1024, 24
    factors: dict[str, torch.Tensor] = {}
    weight_map: dict[str, str] = {}
    for shard in range(3):
        weights = {}
        for number in range(shard * layers_of_a_shard, (shard + 1) * layers_of_a_shard):
            weights[f"model.layers.{number}.proj.weight"] = torch.ones(size, size, dtype=torch.bfloat16)
            factors[f"base_model.model.model.layers.{number}.proj.lora_A.weight"] = torch.ones(2, size)
            factors[f"base_model.model.model.layers.{number}.proj.lora_B.weight"] = torch.ones(size, 2)
        save_file(weights, base / f"model-{shard}.safetensors", {"format": "pt"})
        weight_map |= dict.fromkeys(weights, f"model-{shard}.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    save_file(factors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    save_merged(base, None, TOKENIZER, tmp_path / "warm-up")

    growth = peak_growth_bytes(lambda: save_merged(base, adapter, TOKENIZER, tmp_path / "merged"))

    assert growth < layers_of_a_shard * size * size * 2
    last = weights_of(tmp_path / "merged")["model.layers.71.proj.weight"]
    assert bool((last == 1 + 2 * 2).all())


def test_an_adapter_of_another_model_is_refused_before_anything_is_changed(tmp_path: Path):
    save_base(tmp_path / "base", torch.bfloat16, **{**LLAMA, "num_hidden_layers": 1})
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "larger", torch.bfloat16, **LLAMA))

    with pytest.raises(BaseModelRejected, match=r"hold no weight of model\.layers\.1\.mlp\.down_proj"):
        save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")

    assert not list((tmp_path / "merged").glob("*.safetensors"))


def test_a_layer_of_another_shape_is_refused(tmp_path: Path):
    save_base(tmp_path / "base", torch.bfloat16, **{**LLAMA, "intermediate_size": 96})
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "wider", torch.bfloat16, **LLAMA))

    with pytest.raises(BaseModelRejected, match="it was trained on another model"):
        save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")


def test_a_base_in_8_bits_is_refused(tmp_path: Path):
    base = save_base(tmp_path / "base", torch.bfloat16, **LLAMA)
    adapter = save_adapter(tmp_path / "adapter", base)
    weights = load_file(tmp_path / "base" / "model.safetensors")
    narrow = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in weights.items()}
    save_file(narrow, tmp_path / "base" / "model.safetensors")

    with pytest.raises(BaseModelRejected, match=r"held as F8_E4M3.* take the model's 16-bit form"):
        save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")


def test_a_merged_weight_that_is_no_number_ends_the_stage(tmp_path: Path):
    base = save_base(tmp_path / "base", torch.float16, **LLAMA)
    adapter = save_adapter(tmp_path / "adapter", base)
    path = adapter / "adapter_model.safetensors"
    save_file({name: tensor * 1e4 for name, tensor in load_file(path).items()}, path)

    with pytest.raises(Diverged, match=r"no number in F16; lower spec\.training\.learningRate"):
        save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")


@pytest.mark.parametrize(
    ("change", "words"),
    [({"use_dora": True}, "use_dora"), ({"modules_to_save": ["lm_head"]}, "modules_to_save")],
)
def test_an_adapter_that_is_more_than_lora_is_refused(tmp_path: Path, change: dict[str, Any], words: str):
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base", torch.bfloat16, **LLAMA))
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(BaseModelRejected, match=f"not plain LoRA \\({words}\\)"):
        save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")


def test_a_cut_off_adapter_is_refused_with_the_remedy(tmp_path: Path):
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base", torch.bfloat16, **LLAMA))
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(StoreRejected, match="delete its folder in the store to train it anew"):
        save_merged(tmp_path / "base", adapter, TOKENIZER, tmp_path / "merged")


def test_a_cut_off_base_is_refused(tmp_path: Path):
    save_base(tmp_path / "base", torch.bfloat16, **LLAMA)
    path = tmp_path / "base" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(BaseModelRejected, match="its header tells of"):
        save_merged(tmp_path / "base", None, TOKENIZER, tmp_path / "merged")


def test_told_to_stop_it_stops_before_the_next_file(tmp_path: Path):
    save_base(tmp_path / "base", torch.bfloat16, **LLAMA)

    with pytest.raises(Preempted, match="merges it anew"):
        save_merged(tmp_path / "base", None, TOKENIZER, tmp_path / "merged", stop_requested=lambda: True)
