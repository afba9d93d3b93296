from __future__ import annotations

import struct
from pathlib import Path

import pytest

from finetune_serving.memory import ModelShape, estimate, read_shape

MIB = 1024 * 1024


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def a_gguf(tensor_type: int, **numbers: int) -> bytes:
    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    pairs += [
        text(f"llama.{name.replace('__', '.')}") + struct.pack("<II", 4, value)
        for name, value in numbers.items()
    ]
    pairs.append(text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"))
    pairs.append(text("scores") + struct.pack("<IIQ", 9, 6, 2000) + b"\0" * 8000)
    tensor = text("blk.0.weight") + struct.pack("<IQQIQ", 2, 32, 32, tensor_type, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs) + tensor + b"\0" * 100


NUMBERS = {
    "block_count": 30,
    "embedding_length": 576,
    "attention__head_count": 9,
    "attention__head_count_kv": 3,
}


def test_the_shape_is_read_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(a_gguf(8, **NUMBERS))

    shape = read_shape(path)

    assert shape == ModelShape(path.stat().st_size, False, layers=30, kv_numbers_per_token_and_layer=384)


def test_weights_that_are_laid_out_anew_count_twice(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(a_gguf(2, **NUMBERS))

    need = estimate(read_shape(path), context_tokens=4096)

    assert need.weights_bytes == 2 * path.stat().st_size
    assert need.context_bytes == 90 * MIB


@pytest.mark.parametrize("content", [b"", b"GGML....", a_gguf(8, **NUMBERS)[:60], b"GGUF" + b"\xff" * 40])
def test_what_is_not_a_whole_model_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="not a whole GGUF file"):
        read_shape(path)


def test_a_limit_below_the_need_is_refused_with_numbers() -> None:
    need = estimate(ModelShape(500 * MIB, False, 30, 384), 4096)

    assert need.refusal(None) is None
    assert need.refusal(690 * MIB) is None
    assert need.refusal(689 * MIB) == (
        "the model needs about 690 MiB (weights 500, context 90, other 100), the container's memory limit is 689 MiB;"
        " raise resources.limits.memory to at least 690Mi, or serve a smaller or more strongly quantised model"
    )
