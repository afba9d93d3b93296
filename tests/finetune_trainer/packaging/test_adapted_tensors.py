from __future__ import annotations

import pytest

from finetune_trainer.packaging.adapted_tensors import tensor_of_layer


@pytest.mark.parametrize(
    ("layer", "tensor"),
    [
        ("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.q_proj.weight"),
        ("transformer.h.0.attn.c_attn", "h.0.attn.c_attn.weight"),
        ("model.language_model.layers.0.mlp.up_proj", "language_model.model.layers.0.mlp.up_proj.weight"),
        ("model.layers.7.mlp.up_proj", None),
    ],
)
def test_a_layer_is_found_under_the_name_that_the_files_give_it(layer: str, tensor: str | None):
    names = [
        "model.layers.1.self_attn.q_proj.weight",
        "model.layers.11.self_attn.q_proj.weight",
        "h.0.attn.c_attn.weight",
        "language_model.model.layers.0.mlp.up_proj.weight",
    ]

    assert tensor_of_layer(layer, names) == tensor
