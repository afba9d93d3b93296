"""The house stays as it is drawn: nothing hides a standard module, and every kind has its file and its test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from finetune_contract.run_spec import (
    SOURCE_SETTINGS,
    ExampleKind,
    GateMetric,
    PromptFormat,
    RolloutTarget,
    SourceSpec,
)

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = ["contract", "operator", "trainer_image", "serving", "django_app"]
CODE_ROOTS = [*SOURCE_ROOTS, "demo", "devcluster", "benchmarks", "tests"]
DATASET = ROOT / "trainer_image/finetune_trainer/dataset"
METRICS = ROOT / "trainer_image/finetune_trainer/evaluation/metrics"
TRAINER_TESTS = ROOT / "tests/finetune_trainer"
SHAPELESS = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "misc"}


def modules() -> Iterable[Path]:
    for root in CODE_ROOTS:
        for path in (ROOT / root).rglob("*.py"):
            if not {"node_modules", "__pycache__"} & set(path.parts):
                yield path


def module_name(word: str) -> str:
    return word.replace("-", "_")


def test_no_source_root_is_a_package() -> None:
    """With operator/__init__.py, `import collections` fails for anything that is started from the root."""
    assert [root for root in SOURCE_ROOTS if (ROOT / root / "__init__.py").exists()] == []


def test_no_test_folder_hides_a_standard_module() -> None:
    assert not (ROOT / "tests/operator").exists()


def test_tests_are_no_packages() -> None:
    assert sorted((ROOT / "tests").rglob("__init__.py")) == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in modules() if path.stem in SHAPELESS or path.parent.name in SHAPELESS] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path.relative_to(ROOT)
        for path in modules()
        if "tests" not in path.parts
        and (text := path.read_text(encoding="utf-8").strip())
        and not text.startswith(('"""', "#!"))
    ]

    assert silent == []


def test_every_test_folder_mirrors_a_package_or_names_what_it_needs() -> None:
    needs = {"together", "on_cluster", "in_browser", "on_gpu"}
    others = {"charts", "examples", "demo", "devcluster", "benchmarks", "docs", "scripts"}
    packages = {path.parent.name for root in SOURCE_ROOTS for path in (ROOT / root).glob("*/__init__.py")}
    folders = {
        path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("test_*.py"))
    }

    assert folders <= needs | others | packages


@pytest.mark.parametrize("kind", ExampleKind, ids=lambda kind: kind.value)
def test_every_example_kind_has_its_file_and_test(kind: ExampleKind) -> None:
    name = module_name(kind.value)

    assert (DATASET / f"examples/{name}.py").is_file()
    assert has_test("dataset/examples", name, f"ExampleKind.{kind.name}")


@pytest.mark.parametrize("source", [name for name in SourceSpec.model_fields if name not in SOURCE_SETTINGS])
def test_every_source_has_its_file_and_test(source: str) -> None:
    assert (DATASET / f"sources/{source}.py").is_file()
    assert has_test("dataset/sources", source, f"sources.{source}")


@pytest.mark.parametrize("metric", GateMetric, ids=lambda metric: metric.value)
def test_every_gate_metric_has_its_file_and_test(metric: GateMetric) -> None:
    name = module_name(metric.value)

    assert (METRICS / f"{name}.py").is_file()
    assert has_test("evaluation", name, f"GateMetric.{metric.name}")


def has_test(folder: str, name: str, named: str) -> bool:
    """A test file of its own, or one beside its siblings that names it."""
    files = list((TRAINER_TESTS / folder).rglob("test_*.py"))
    own = any(path.stem.startswith(f"test_{name}") for path in files)
    return own or any(named in path.read_text(encoding="utf-8") for path in files)


def test_every_run_that_is_shown_can_choose_every_prompt_format() -> None:
    shown = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("examples/*/finetunerun.yaml"))

    for prompt_format in PromptFormat:
        assert prompt_format is PromptFormat.CHAT or f"promptFormat: {prompt_format.value}" in shown


def test_every_rollout_target_may_be_patched_by_the_chart() -> None:
    rules = (ROOT / "charts/finetune-operator/templates/_helpers.tpl").read_text(encoding="utf-8")

    for target in RolloutTarget.model_fields:
        rule = rules.split(f"resources: [{target}s]")[1].split("- apiGroups")[0]
        assert "patch" in rule
