from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.training.model_shape import UnknownShape, model_shape, read_model_shape

GEMMA_2 = {
    "model_type": "gemma2",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 256000,
}
LLAMA_2 = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}


def parameters(config: dict[str, object]) -> int:
    shape = model_shape(config)
    linears = shape.layers * sum(linear.inputs * linear.outputs for linear in shape.linears)
    return linears + shape.full_precision_parameters


def test_published_models_have_their_published_number_of_parameters():
    assert parameters(LLAMA_2) == 6_738_415_616
    assert parameters(GEMMA_2) == 2_614_341_888
    assert (
        parameters(
            {
                "model_type": "qwen2",
                "hidden_size": 896,
                "intermediate_size": 4864,
                "num_hidden_layers": 24,
                "num_attention_heads": 14,
                "num_key_value_heads": 2,
                "vocab_size": 151936,
                "tie_word_embeddings": True,
            }
        )
        == 494_032_768
    )


def test_a_field_that_is_left_out_has_the_meaning_of_its_family():
    gemma, llama = model_shape(GEMMA_2), model_shape(LLAMA_2)

    assert (gemma.head_width, gemma.tied_head, gemma.attention_softcap, gemma.sliding_layers) == (
        256,
        True,
        True,
        13,
    )
    assert (llama.head_width, llama.tied_head, llama.attention_softcap, llama.sliding_layers) == (
        128,
        False,
        False,
        0,
    )
    assert llama.key_value_heads == 32


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {**LLAMA_2, "model_type": "mamba"},
            "model_type 'mamba' are not known, those of gemma, gemma2, llama",
        ),
        ({**LLAMA_2, "hidden_size": None}, "hidden_size is None"),
        ({**LLAMA_2, "vocab_size": 0}, "vocab_size is 0; it must be a whole number over 0"),
    ],
)
def test_a_model_whose_sizes_are_not_known_is_named(config: dict[str, object], words: str):
    with pytest.raises(UnknownShape, match=words):
        model_shape(config)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_file_that_is_no_config_is_named(tmp_path: Path, content: str):
    file = tmp_path / "config.json"
    if content:
        file.write_text(content)

    with pytest.raises(UnknownShape, match=r"config\.json: .*give a model's config\.json"):
        read_model_shape(file)
