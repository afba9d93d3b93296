from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from transformers import AutoModelForCausalLM

from finetune_contract.artifact_layout import GGUF_FILE, SAFETENSORS_FOLDER, model_folder
from finetune_contract.run_spec import GgufType, PromptFormat
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.packaging.package import package, package_base
from finetune_trainer.packaging.template_parity import check_parity
from finetune_trainer.stores.local_folder import LocalFolder
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import (
    CHATML,
    RUN_KEY,
    context_for,
    example,
    publish_dataset,
    save_tiny_model,
    spec_for,
    tiny_tokenizer,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def packaged(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and packaged run; the store is below it."""
    folder = tmp_path_factory.mktemp("run")
    context = context_for(folder, spec_for(base, maxSteps=3))
    publish_dataset(context, [example(number) for number in range(8)])
    train(context)
    package(context)
    return folder


def model_of(run: Path) -> Path:
    return run / "store" / model_folder(RUN_KEY)


def test_the_model_folder_holds_what_each_server_needs_and_names_what_llama_cpp_fetches(packaged: Path):
    manifest = read_manifest(LocalFolder(packaged / "store"), model_folder(RUN_KEY))

    assert manifest is not None
    names = {entry.path for entry in manifest.files}
    assert {
        GGUF_FILE,
        "prompt.json",
        "README.md",
        "safetensors/config.json",
        "safetensors/model.safetensors",
    } <= names
    assert "safetensors/tokenizer.json" in names
    assert [entry.path for entry in manifest.files if entry.serving] == [GGUF_FILE]
    assert manifest.facts["tuned"] is True


def test_the_merged_model_answers_like_base_and_adapter_together(packaged: Path, base: Path):
    prompt = torch.tensor([[5, 6, 7, 8, 9]])
    untuned = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(
        model_of(packaged) / SAFETENSORS_FOLDER, dtype=torch.float32
    )
    before = untuned(prompt).logits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = PeftModel.from_pretrained(untuned, packaged / "work" / "adapter").eval()

    torch.testing.assert_close(merged(prompt).logits, adapted(prompt).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(merged(prompt).logits, before, atol=1e-3)


def test_the_gguf_file_carries_the_chat_template_and_the_turn_end(packaged: Path):
    reader = GGUFReader(model_of(packaged) / GGUF_FILE)

    def value(key: str) -> object:
        field = reader.get_field(key)
        assert field is not None
        return field.contents()

    assert value("tokenizer.chat_template") == CHATML
    assert value("tokenizer.ggml.eos_token_id") == tiny_tokenizer().eos_token_id


def test_packaging_twice_gives_the_same_manifest_and_does_the_work_once(packaged: Path, base: Path):
    before = (model_of(packaged) / GGUF_FILE).stat().st_mtime_ns

    report = package(context_for(packaged, spec_for(base, maxSteps=3)))

    assert report.model is not None
    manifest = read_manifest(LocalFolder(packaged / "store"), model_folder(RUN_KEY))
    assert manifest is not None
    assert report.model.manifest_sha256 == manifest.sha256()
    assert (model_of(packaged) / GGUF_FILE).stat().st_mtime_ns == before


def test_another_base_than_the_trained_one_is_refused(packaged: Path, tmp_path: Path):
    other = save_tiny_model(tmp_path / "other", layers=1)
    manifest = model_of(packaged) / "manifest.json"
    hidden = manifest.rename(manifest.with_suffix(".hidden"))

    try:
        with pytest.raises(BaseModelRejected, match="no longer the model that the adapter was trained on"):
            package(context_for(packaged, spec_for(other)))
    finally:
        hidden.rename(manifest)


def test_the_untuned_base_is_packaged_in_the_same_shape(packaged: Path, base: Path, tmp_path: Path):
    store = LocalFolder(tmp_path / "store")

    manifest = package_base(base, store, "base/packaged", work_folder=tmp_path, gguf_type=GgufType.F16)

    tuned = read_manifest(LocalFolder(packaged / "store"), model_folder(RUN_KEY))
    assert tuned is not None
    assert [entry.path for entry in manifest.files] == [entry.path for entry in tuned.files]
    assert manifest.facts["tuned"] is False
    assert read_manifest(store, "base/packaged") == manifest


@pytest.mark.parametrize(
    ("prompt_format", "words"),
    [(PromptFormat.QUESTION_ANSWER, "question: "), (PromptFormat.ALPACA, "### Response:")],
)
def test_the_template_of_the_format_travels_with_the_model(
    tmp_path: Path, prompt_format: PromptFormat, words: str
):
    base = save_tiny_model(tmp_path / "base", chat_template=None)
    spec = spec_for(base, maxSteps=1)
    dataset = spec.dataset.model_copy(update={"prompt_format": prompt_format})
    context = context_for(tmp_path, spec.model_copy(update={"dataset": dataset}))
    publish_dataset(context, [example(0), example(1)])
    train(context)

    package(context)

    prompt = json.loads((model_of(tmp_path) / "prompt.json").read_text())
    assert prompt["promptFormat"] == prompt_format.value
    field = GGUFReader(model_of(tmp_path) / GGUF_FILE).get_field("tokenizer.chat_template")
    assert field is not None
    assert words in field.contents()


def test_a_served_template_that_renders_other_tokens_is_refused(tmp_path: Path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)

    check_parity(tokenizer, tmp_path, CHATML)
    with pytest.raises(BaseModelRejected, match="the chat template in the GGUF file"):
        check_parity(tokenizer, tmp_path, CHATML.replace("assistant", "model"))
