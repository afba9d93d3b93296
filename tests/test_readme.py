"""The README's commands, read out of it: each is tried here, or is known to be tried by a bigger test.

Left out: `make demo` and `make test` as a whole, of which only the recipe is expanded; CI runs the second.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster.kubectl import tools_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Every command in the README's console blocks, continuation lines joined."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def run(*command: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tools_folder()}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_has_the_two_commands_and_three_ways_in() -> None:
    first_words = [shlex.split(command)[:2] for command in commands()]

    assert ["make", "demo"] in first_words
    assert ["make", "test"] in first_words
    assert {"uv", "helm", "kubectl"} <= {words[0] for words in first_words}


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_a_make_target_exists_and_its_recipe_expands(command: str) -> None:
    assert run("make", "--dry-run", *shlex.split(command)[1:]).strip()


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("uv run finetune ")])
def test_the_laptop_command_is_understood_up_to_the_site_that_is_only_an_example(
    command: str, tmp_path: Path
) -> None:
    words = shlex.split(command)[3:]
    words[words.index("--workspace") + 1] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "finetune_trainer.laptop", *words, "--set", "spec.training.maxSteps=none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 10
    assert done.stderr.strip().splitlines() == [
        line for line in done.stderr.splitlines() if "maxSteps" in line
    ]


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("helm install ")])
def test_the_chart_renders_with_the_values_that_the_readme_sets(command: str) -> None:
    words = [word for word in shlex.split(command)[2:] if word != "--create-namespace"]

    assert "registry.example/finetune-operator" in run("helm", "template", *words)


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("kubectl apply -f ")])
def test_what_is_applied_is_there(command: str) -> None:
    assert (ROOT / shlex.split(command)[3]).is_file()


def test_links_to_files_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]

    assert [link for link in links if not (ROOT / link).exists()] == []
