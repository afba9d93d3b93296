"""What a report says of a stored model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_contract.artifacts import ArtifactKind
from finetune_trainer.artifact_files import publish_folder
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

    facts = model_facts(store, "m", manifest)

    assert facts.serving_bytes == 100
    assert facts.size_bytes > 100
    assert facts.context_bytes_per_token == 12288
