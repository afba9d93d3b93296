"""The page about sources shows every kind, in a form that the contract takes."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from finetune_contract.run_spec import SOURCE_SETTINGS, SourceSpec

PAGE = (Path(__file__).parents[2] / "docs/sources.md").read_text(encoding="utf-8")


def test_every_kind_of_source_has_its_smallest_yaml():
    shown = set()
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        for source in yaml.safe_load(block)["sources"]:
            spec = SourceSpec.model_validate(source)
            shown |= {
                kind
                for kind in SourceSpec.model_fields
                if getattr(spec, kind) and kind not in SOURCE_SETTINGS
            }

    assert shown == set(SourceSpec.model_fields) - set(SOURCE_SETTINGS)
