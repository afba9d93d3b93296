"""The table of specs that cannot work: for the laptop's words and the API server's. Not a test itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/gemma-2-2b/finetunerun.yaml"
ROWS: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def spec_of(row: dict[str, Any]) -> dict[str, Any]:
    """The example's spec with the row's value in it."""
    spec: dict[str, Any] = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))["spec"])
    *folders, last = row["path"].split(".")
    here = spec
    for step in folders:
        here = here.setdefault(step, {})
    if row["value"] is None:
        del here[last]
    else:
        here[last] = row["value"]
    return spec


def name_of(row: dict[str, Any]) -> str:
    """For the list of tests."""
    return f"{row['path']}={row['value']}"[:60]
