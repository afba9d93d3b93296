from __future__ import annotations

import pytest

from finetune_trainer.training.adapted_tensors import tensor_of_layer


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


def test_of_a_decoder_and_a_tower_with_the_same_layers_each_is_found_by_the_rest_of_its_name():
    tail = "layers.0.self_attn.q_proj"
    decoder, tower = f"language_model.model.{tail}.weight", f"vision_tower.vision_model.encoder.{tail}.weight"

    assert tensor_of_layer(f"model.language_model.{tail}", [tower, decoder]) == decoder
    assert tensor_of_layer(f"model.vision_tower.vision_model.encoder.{tail}", [tower, decoder]) == tower
    assert tensor_of_layer(f"model.{tail}", [f"left.{tail}.weight", f"right.{tail}.weight"]) is None
