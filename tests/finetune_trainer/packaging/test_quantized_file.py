"""Formats that the converter does not write are made of its 16-bit file, and llama.cpp loads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize
from transformers import AutoModelForCausalLM

from finetune_contract.run_spec import GgufType
from finetune_trainer.errors import InvalidRun
from finetune_trainer.packaging import gguf, llama_cpp
from finetune_trainer.packaging.llama_cpp import quantize_rows, served
from finetune_trainer.packaging.quantized_file import quantize_file, tensor_format
from tests.finetune_trainer.training.tiny_model import CHATML, save_tiny_model

TEXT = "<|im_start|>user\nHow high is mast 1?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def wide_file(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "wide.gguf"
    gguf.convert(model, path, GgufType.F16, lambda: None)
    return path


@pytest.mark.parametrize(
    ("kind", "name", "columns", "is_head", "expected"),
    [
        (GgufType.Q4_0, "blk.0.attn_q.weight", 512, False, "Q4_0"),
        (GgufType.Q4_0, "output.weight", 512, True, "Q6_K"),
        (GgufType.Q4_0, "output.weight", 576, True, "Q8_0"),
        (GgufType.Q4_K_M, "token_embd.weight", 512, False, "Q4_K"),
        (GgufType.Q4_K_M, "blk.3.attn_q.weight", 512, False, "Q4_K"),
        (GgufType.Q4_K_M, "blk.3.attn_q.weight", 576, False, "Q5_0"),
        (GgufType.Q4_K_M, "blk.3.attn_q.weight", 80, False, "F16"),
        (GgufType.Q4_K_M, "blk.0.attn_v.weight", 512, False, "Q6_K"),
        (GgufType.Q4_K_M, "blk.4.attn_v.weight", 512, False, "Q4_K"),
        (GgufType.Q4_K_M, "blk.6.ffn_down.weight", 512, False, "Q6_K"),
        (GgufType.Q4_K_M, "blk.31.ffn_down.weight", 576, False, "Q8_0"),
        (GgufType.Q4_K_M, "blk.3.attn_qkv.weight", 512, False, "Q5_K"),
    ],
)
def test_each_tensor_gets_the_format_that_llama_cpp_would_choose(
    kind: GgufType, name: str, columns: int, is_head: bool, expected: str
):
    assert tensor_format(kind, name, columns, layers=32, is_head=is_head) == expected


@pytest.mark.parametrize(("kind", "error"), [("Q4_0", 0.09), ("Q8_0", 0.006), ("Q4_K", 0.08), ("Q6_K", 0.02)])
def test_quantised_rows_are_near_what_they_were(kind: str, error: float):
    rows = np.random.default_rng(3).standard_normal((7, 512), dtype=np.float32)
    form = GGMLQuantizationType[kind]
    width = {"Q4_0": 288, "Q8_0": 544, "Q4_K": 288, "Q6_K": 420}[kind]
    target = np.zeros((7, width), dtype=np.uint8)

    quantize_rows(rows, int(form), target)

    assert np.sqrt(np.mean((dequantize(target, form) - rows) ** 2)) < error
    if kind in ("Q4_0", "Q8_0"):  # these the Python package can write too
        np.testing.assert_array_equal(target, quantize(rows, form))


def test_all_formats_can_be_made_here():
    for kind in GgufType:
        gguf.check_can_make(kind)


def test_a_missing_library_is_named_with_the_formats_that_need_none(monkeypatch: pytest.MonkeyPatch):
    def missing() -> None:
        raise ImportError("No module named 'xllamacpp'")

    monkeypatch.setattr(llama_cpp, "_quantizer", missing)

    gguf.check_can_make(GgufType.Q8_0)
    with pytest.raises(InvalidRun, match=r"spec\.packaging\.gguf: q4_k_m needs .* take q8_0 or f16"):
        gguf.check_can_make(GgufType.Q4_K_M)


@pytest.mark.parametrize("kind", [GgufType.Q4_0, GgufType.Q4_K_M])
def test_the_small_file_holds_the_same_model(wide_file: Path, tmp_path: Path, kind: GgufType):
    quantize_file(wide_file, tmp_path / "small.gguf", kind, lambda: None)

    wide, small = GGUFReader(wide_file), GGUFReader(tmp_path / "small.gguf")
    assert wide.fields.keys() == small.fields.keys()
    assert small.fields["general.file_type"].contents() == {GgufType.Q4_0: 2, GgufType.Q4_K_M: 15}[kind]
    assert small.fields["tokenizer.chat_template"].contents() == CHATML
    for before, after in zip(wide.tensors, small.tensors, strict=True):
        assert before.name == after.name
        original = dequantize(before.data, before.tensor_type)
        np.testing.assert_allclose(dequantize(after.data, after.tensor_type), original, atol=0.02)
    assert sum(t.n_bytes for t in small.tensors) < 0.6 * sum(t.n_bytes for t in wide.tensors)


def test_a_small_format_is_converted_by_way_of_16_bits_and_leaves_nothing_else(model: Path, tmp_path: Path):
    gguf.convert(model, tmp_path / "model.gguf", GgufType.Q4_K_M, lambda: None)

    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    assert gguf.chat_template_of(tmp_path / "model.gguf") == CHATML


def test_the_server_tells_the_probability_of_each_token_of_an_answer(model: Path, wide_file: Path):
    with served(wide_file, 256) as server:
        prompt = server.token_ids(TEXT)
        answer = server.token_ids("4 metres.<|im_end|>")
        losses = server.answer_losses(prompt, answer)

    token_ids = torch.tensor([prompt + answer])
    logits = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(token_ids).logits[0]
    expected = torch.nn.functional.cross_entropy(
        logits[len(prompt) - 1 : -1], torch.tensor(answer), reduction="none"
    )
    assert losses == pytest.approx(expected.tolist(), abs=0.02)
