from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from transformers import AutoModelForCausalLM

from finetune_contract.artifact_layout import GGUF_FILE, SAFETENSORS_FOLDER, model_folder
from finetune_contract.run_spec import GgufType, PromptFormat
from finetune_contract.stage_protocol import TrainingOverlay
from finetune_contract.training_overlay import with_overlay
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.errors import BaseModelRejected, LossRaised
from finetune_trainer.packaging import gguf, quality
from finetune_trainer.packaging.llama_cpp import served
from finetune_trainer.packaging.merge import save_merged
from finetune_trainer.packaging.package import package, package_base
from finetune_trainer.packaging.quality import Losses
from finetune_trainer.packaging.template_parity import SAMPLES, check_parity
from finetune_trainer.stores.local_folder import LocalFolder
from finetune_trainer.training.train import train
from tests.finetune_trainer.packaging.finished_training import finished_training
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
    publish_dataset(context, [example(number) for number in range(8)], [example(9), example(11)])
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
        "provenance.json",
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


def test_a_model_that_was_trained_on_less_memory_tells_the_settings_that_were_used(
    base: Path, tmp_path: Path
):
    spec = spec_for(base, maxSteps=2, sequenceLength=1024)
    context = context_for(tmp_path, spec)
    publish_dataset(context, [example(number) for number in range(8)], [example(9)])
    overlay = TrainingOverlay(micro_batch_size=1, gradient_checkpointing=True, sequence_length=256)
    train(replace(context, spec=with_overlay(spec, overlay.to_json())))

    package(context)

    assert "| tokens of an example at most | 256 |" in (model_of(tmp_path) / "README.md").read_text()
    provenance = json.loads((model_of(tmp_path) / "provenance.json").read_text())
    definition = provenance["predicate"]["buildDefinition"]
    assert definition["internalParameters"].items() >= overlay.to_wire().items()
    assert definition["externalParameters"]["spec"]["training"]["sequenceLength"] == 1024


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
    files = [entry.path for entry in tuned.files if entry.path != "provenance.json"]
    assert [entry.path for entry in manifest.files] == files
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


def test_the_losses_of_trained_merged_and_served_model_are_in_the_manifest_and_near_each_other(
    packaged: Path,
):
    manifest = read_manifest(LocalFolder(packaged / "store"), model_folder(RUN_KEY))

    assert manifest is not None
    facts = manifest.facts
    assert facts["lossQuestions"] == 2
    assert facts["lossMerged"] == pytest.approx(facts["lossTrained"], abs=0.2)
    assert facts["lossServed"] == pytest.approx(facts["lossMerged"], abs=0.02)
    assert facts["promptsCompared"] == 2 + len(SAMPLES)


def test_the_provenance_names_every_other_file_as_the_manifest_does(packaged: Path):
    manifest = read_manifest(LocalFolder(packaged / "store"), model_folder(RUN_KEY))

    assert manifest is not None
    document = json.loads((model_of(packaged) / "provenance.json").read_text())
    named = {subject["name"]: subject["digest"]["sha256"] for subject in document["subject"]}
    assert named == {e.path: e.sha256 for e in manifest.files if e.path != "provenance.json"}


def test_a_loss_over_the_limit_ends_the_stage_and_stores_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    context = finished_training(tmp_path, base)
    monkeypatch.setattr(quality, "measure", lambda *_: Losses(2, 1.0, 1.5, 1.5))

    with pytest.raises(LossRaised, match=r"spec\.packaging\.maxLossIncrease 0"):
        package(context)

    assert context.store.list(model_folder(RUN_KEY)) == []


@pytest.fixture(scope="module")
def served_base(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as the stage saves and converts it."""
    folder = tmp_path_factory.mktemp("served")
    save_merged(base, None, tiny_tokenizer(), folder / "saved")
    gguf.convert(folder / "saved", folder / "model.gguf", GgufType.F16, lambda: None)
    return folder


def test_prompts_of_the_trained_template_are_the_servers_token_for_token(served_base: Path):
    with served(served_base / "model.gguf", 512) as server:
        count = check_parity(tiny_tokenizer(), served_base / "saved", server, [example(0).prompt])

    assert count == len(SAMPLES) + 1


def test_a_template_that_was_not_trained_is_refused_with_the_first_token_that_differs(served_base: Path):
    other = tiny_tokenizer(CHATML.replace("assistant", "model"))
    other.save_pretrained(served_base / "other")

    with (
        served(served_base / "model.gguf", 512) as server,
        pytest.raises(BaseModelRejected, match=r"the model server makes other tokens.* from token \d+ on"),
    ):
        check_parity(other, served_base / "other", server)


def test_a_saved_tokenizer_that_splits_otherwise_is_refused(served_base: Path):
    other = tiny_tokenizer(CHATML.replace("assistant", "model"))

    with (
        served(served_base / "model.gguf", 512) as server,
        pytest.raises(BaseModelRejected, match="the saved tokenizer makes other tokens"),
    ):
        check_parity(other, served_base / "saved", server)


def test_a_server_that_would_begin_every_prompt_with_a_token_that_training_did_not_is_told_not_to(
    served_base: Path,
):
    config = json.loads((served_base / "saved" / "tokenizer_config.json").read_text())

    assert tiny_tokenizer().bos_token is not None
    assert config["add_bos_token"] is False
