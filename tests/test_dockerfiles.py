"""The four Dockerfiles as far as they can be judged without building: what they install, copy and run as."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PARTS = {"operator": "operator", "trainer_image": "trainer", "serving": "serving", "django_app": "django"}


@pytest.fixture(params=sorted(PARTS))
def part(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def instructions(part: str) -> str:
    return (ROOT / part / "Dockerfile").read_text()


def test_an_image_installs_the_locked_packages_of_its_own_extra(part: str) -> None:
    syncs = re.findall(r"uv sync (.*)", instructions(part))

    assert len(syncs) == 2
    assert all("--frozen" in sync and f"--extra {PARTS[part]}" in sync for sync in syncs)
    assert PARTS[part] in PROJECT["project"]["optional-dependencies"]


def test_an_image_is_built_from_every_folder_that_the_wheel_is_made_of(part: str) -> None:
    roots = {
        package.split("/")[0] for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    }
    copied = set(re.findall(r"^COPY (\w+) \1$", instructions(part), re.MULTILINE))
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert copied == roots
    assert roots <= allowed


def test_an_image_does_not_run_as_root(part: str) -> None:
    assert re.findall(r"^USER (.*)$", instructions(part), re.MULTILINE) == ["65532:65532"]
