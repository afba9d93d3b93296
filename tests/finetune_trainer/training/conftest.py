"""The tiny model, and a run of it that nothing disturbed; made once for each test file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.finetune_trainer.training.tiny_model import save_tiny_model
from tests.finetune_trainer.training.tiny_run import run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder, base)
    return folder
