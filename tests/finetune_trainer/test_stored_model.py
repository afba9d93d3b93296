"""What a report says of a stored model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from finetune_contract.artifact_layout import VERDICT_FILE, evaluation_folder, model_folder
from finetune_contract.artifacts import MANIFEST_NAME, ArtifactKind
from finetune_contract.stage_protocol import EvaluationFacts
from finetune_trainer.artifact_files import publish_folder
from finetune_trainer.dataset.adoption import find_finished
from finetune_trainer.stored_model import context_bytes_per_token, model_facts
from finetune_trainer.stores.local_folder import LocalFolder

QWEN = {"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 896}
LLAMA_2 = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}
GEMMA = QWEN | {"num_key_value_heads": 4, "head_dim": 256, "num_hidden_layers": 26}


@pytest.mark.parametrize(("config", "bytes_"), [(QWEN, 12288), (LLAMA_2, 524288), (GEMMA, 106496)])
def test_the_context_of_known_models(config, bytes_):
    assert context_bytes_per_token(json.dumps(config).encode()) == bytes_


@pytest.mark.parametrize(
    "config", [None, b"", b"{}", b"[1]", b'{"num_hidden_layers": 2, "num_attention_heads": 0}']
)
def test_a_configuration_that_does_not_say_it_gives_nothing(config):
    assert context_bytes_per_token(config) == 0


def test_only_files_that_are_served_count_as_such(tmp_path: Path):
    folder = tmp_path / "model"
    (folder / "safetensors").mkdir(parents=True)
    (folder / "safetensors/config.json").write_text(json.dumps(QWEN))
    (folder / "model.gguf").write_bytes(b"x" * 100)
    store = LocalFolder(tmp_path / "store")
    manifest = publish_folder(store, "m", folder, ArtifactKind.MODEL, {}, serving={"model.gguf"})

    facts = model_facts(store, "m", manifest, "a" * 64)

    assert facts.manifest_sha256 == "a" * 64
    assert facts.serving_bytes == 100
    assert facts.size_bytes > 100
    assert facts.context_bytes_per_token == 12288


def test_a_finished_model_whose_manifest_another_release_wrote_is_known_by_its_bytes(tmp_path: Path):
    """They are what a pod compares with its pin."""
    store, folder = LocalFolder(tmp_path / "store"), tmp_path / "made"
    folder.mkdir()
    (folder / VERDICT_FILE).write_text(json.dumps(EvaluationFacts(passed=True, gate="passed").to_wire()))
    for place in (model_folder("key"), evaluation_folder("key")):
        publish_folder(store, place, folder, ArtifactKind.MODEL, {})
    manifest = f"{model_folder('key')}/{MANIFEST_NAME}"
    written = json.dumps(json.loads(store.read(manifest) or b"")).encode()
    store.write(manifest, written)

    model, _ = find_finished(store, "key")

    assert model is not None
    assert model.manifest_sha256 == hashlib.sha256(written).hexdigest()
