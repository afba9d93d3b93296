"""What a report says of a model that lies in the store: where, which, how large, and what serving it takes."""

from __future__ import annotations

import json

from finetune_contract.artifact_layout import SAFETENSORS_FOLDER
from finetune_contract.artifacts import Manifest
from finetune_contract.stage_protocol import ModelFacts
from finetune_trainer.stores.store import Store

_BYTES_PER_NUMBER = 2
"""llama.cpp keeps keys and values in 16 bits."""


def model_facts(store: Store, key: str, manifest: Manifest, manifest_sha256: str) -> ModelFacts:
    """The facts about the model folder at `key`; the digest is that of the manifest's bytes, as they lie there."""
    return ModelFacts(
        uri=store.uri(key),
        manifest_sha256=manifest_sha256,
        size_bytes=manifest.size_bytes,
        serving_bytes=sum(entry.size for entry in manifest.files if entry.serving),
        context_bytes_per_token=context_bytes_per_token(
            store.read(f"{key}/{SAFETENSORS_FOLDER}/config.json")
        ),
    )


def context_bytes_per_token(config: bytes | None) -> int:
    """Bytes of keys and values for a token, all layers together; 0 when the configuration does not say.

    Layers, heads for keys and values, and their width are those of a transformers `config.json`.
    """
    try:
        facts = json.loads(config or b"")
        layers, heads = facts["num_hidden_layers"], facts["num_attention_heads"]
        kv_heads = facts.get("num_key_value_heads") or heads
        width = facts.get("head_dim") or facts["hidden_size"] // heads
        size = int(layers) * int(kv_heads) * int(width) * 2 * _BYTES_PER_NUMBER
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return 0
    return max(0, size)
