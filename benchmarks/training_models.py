"""Models of real shapes with random weights, for timing a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from finetune_trainer.training.compute_dtype import choose_device

SHAPES: dict[str, dict[str, Any]] = {
    "llama-2-7b": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
    "gemma-2-2b": {
        "model_type": "gemma2",
        "vocab_size": 256000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    },
    "tiny": {
        "model_type": "gemma2",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 128,
    },
}


def save_random_model(folder: Path, name: str) -> None:
    """Config, 16-bit weights, and a tokenizer of bytes, for peers that ask for one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    fields = dict(SHAPES[name])
    config = AutoConfig.for_model(
        fields.pop("model_type"), pad_token_id=0, bos_token_id=1, eos_token_id=2, **fields
    )
    with torch.device(choose_device()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    names = ["<pad>", "<s>", "</s>", "<unk>", *pre_tokenizers.ByteLevel.alphabet()]
    tokenizer = Tokenizer(
        models.BPE(vocab={n: place for place, n in enumerate(names)}, merges=[], unk_token="<unk>")  # noqa: S106
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends).save_pretrained(folder)


def linear_weights(name: str) -> int:
    """Weights of the decoder's linear layers: what a token is multiplied with."""
    shape = SHAPES[name]
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    width = shape.get("head_dim", hidden // heads)
    attention = hidden * width * (2 * heads + 2 * shape["num_key_value_heads"])
    return int(shape["num_hidden_layers"] * (attention + 3 * hidden * shape["intermediate_size"]))
