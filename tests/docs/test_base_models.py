"""The page about base models shows commands that the tools take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.cli import download
from huggingface_hub.cli.hf import app

PAGE = (Path(__file__).parents[2] / "docs/base-models.md").read_text(encoding="utf-8")


def test_the_download_for_a_closed_cluster_leaves_pickles_and_other_formats_out(
    monkeypatch: pytest.MonkeyPatch,
):
    asked: dict[str, Any] = {}
    monkeypatch.setattr(download, "snapshot_download", lambda **options: asked.update(options) or "")
    command = re.search(r"^hf (download .*)$", PAGE, re.MULTILINE)
    assert command is not None

    app.main(shlex.split(command[1]), standalone_mode=False)

    assert asked["repo_id"] == "google/gemma-2-2b"
    assert asked["ignore_patterns"] == ["*.bin", "*.gguf"]
