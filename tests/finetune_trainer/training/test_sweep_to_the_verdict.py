"""A sweep taken whole: from pages to the verdict, by the stages themselves, and one model comes out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from finetune_contract.artifact_layout import adapter_folder, model_folder, run_folder
from finetune_contract.artifacts import Manifest
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.stage_protocol import Stage
from finetune_contract.sweep_trials import trials_of
from finetune_trainer.__main__ import StopSignal
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.laptop import RunResult, run_stages
from finetune_trainer.stores.local_folder import LocalFolder
from tests.finetune_trainer.training.tiny_model import spec_for

TOPICS = ("mill", "forge", "barn", "pond", "bridge", "oven", "tower", "cellar")
WEIGHTS = "adapter_model.safetensors"


def pages(folder: Path) -> Path:
    folder.mkdir()
    for number, topic in enumerate(TOPICS, start=1):
        (folder / f"{topic}.md").write_text(
            f"---\ntitle: The {topic}\n---\n## How much is the {topic}?\n"
            f"The {topic} was bought for {number}50 pounds.\n\n"
            f"## History of the {topic}\nThe old {topic} was built in 19{number + 10} by two brothers.\n"
        )
    return folder


def spec_of(base: Path, source: Path, **training: object) -> FineTuneRunSpec:
    wire = spec_for(base, maxSteps=2, sequenceLength=2048, **training).to_wire()
    wire["dataset"] = {
        "sources": [
            {"name": "site", "markdown": {"folder": str(source), "baseUrl": "https://mill.example/"}}
        ],
        "minDocuments": 5,
        "minExamples": 20,
    }
    wire["evaluation"] = {"maxQuestions": 4, "maxAnswerTokens": 8, "gates": []}
    return FineTuneRunSpec.model_validate(wire)


def run(folder: Path, spec: FineTuneRunSpec) -> RunResult:
    result = run_stages("tiny", spec, folder, Stage.EVALUATE, {}, True, StopSignal())
    assert result.exit_code == 0, result.to_json()
    assert [report.stage for report in result.reports] == list(Stage)
    return result


class Stored:
    """What a run left in the store."""

    def __init__(self, folder: Path, result: RunResult) -> None:
        self.root, self.key = folder / "store", result.run_key
        self.store = LocalFolder(self.root)

    def manifest(self, key: str) -> Manifest:
        found = read_manifest(self.store, key)
        assert found is not None
        return found

    def text(self, name: str) -> str:
        return (self.root / model_folder(self.key) / name).read_text()


@pytest.fixture(scope="module")
def swept(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Stored, FineTuneRunSpec]:
    folder = tmp_path_factory.mktemp("swept")
    spec = spec_of(base, pages(folder / "pages"), sweep={"learningRate": [0.0005, 0.01], "rank": [2, 4]})
    return Stored(folder, run(folder, spec)), spec


def test_the_model_is_that_of_a_plain_run_with_the_settings_of_the_chosen_trial(
    swept: tuple[Stored, FineTuneRunSpec], base: Path, tmp_path: Path
):
    stored, spec = swept
    facts = stored.manifest(adapter_folder(stored.key)).facts
    losses = [float(told.rpartition(": ")[2]) for told in _list(facts["trialLosses"])]
    number = losses.index(min(losses)) + 1
    chosen = trials_of(spec.training)[number - 1]
    plain_spec = spec.model_copy(update={"training": chosen.model_copy(update={"evaluate_every_steps": 100})})

    plain = Stored(tmp_path, run(tmp_path, plain_spec))

    assert facts["trial"] == number
    assert len(set(losses)) == 4
    merged = "safetensors/model.safetensors"
    assert _sha256(stored, model_folder(stored.key), merged) == _sha256(
        plain, model_folder(plain.key), merged
    )
    adapter, expected = (load_file(one.root / adapter_folder(one.key) / WEIGHTS) for one in (stored, plain))
    assert adapter.keys() == expected.keys()
    assert all(weight.equal(expected[name]) for name, weight in adapter.items())


def test_the_model_names_the_adapter_that_it_was_made_of_and_the_trial(
    swept: tuple[Stored, FineTuneRunSpec],
):
    stored, spec = swept
    adapter, model = (stored.manifest(name(stored.key)) for name in (adapter_folder, model_folder))

    dependencies: list[dict[str, Any]] = json.loads(stored.text("provenance.json"))["predicate"][
        "buildDefinition"
    ]["resolvedDependencies"]

    assert [one["digest"]["sha256"] for one in dependencies if one["name"] == "adapter"] == [adapter.sha256()]
    for name in ("trial", "trials", "trialSettings", "trialLosses"):
        assert model.facts[name] == adapter.facts[name]
    trial = trials_of(spec.training)[int(str(model.facts["trial"])) - 1]
    card = stored.text("README.md")
    assert f"Trial {model.facts['trial']} of 4 is this model" in card
    assert f"| LoRA | rank {trial.lora.rank}, alpha 8, dropout 0.1 |" in card
    assert f"| learning rate | {trial.learning_rate:g} |" in card
    for number, told in enumerate(_list(model.facts["trialLosses"]), start=1):
        settings, _, loss = told.rpartition(": ")
        assert f"| {number}: {settings} | {loss} |" in card


def test_nothing_of_the_other_trials_is_stored(swept: tuple[Stored, FineTuneRunSpec]):
    stored, _ = swept

    keys = list(stored.store.list(""))

    parts = {
        key.removeprefix(f"{run_folder(stored.key)}/").split("/")[0]
        for key in keys
        if key.startswith("runs/")
    }
    assert parts == {"adapter", "evaluation", "model"}
    assert [key for key in keys if key.endswith(WEIGHTS)] == [f"{adapter_folder(stored.key)}/{WEIGHTS}"]


def _list(fact: object) -> list[str]:
    assert isinstance(fact, list)
    return fact


def _sha256(stored: Stored, key: str, name: str) -> str:
    (told,) = (file.sha256 for file in stored.manifest(key).files if file.path == name)
    assert hashlib.sha256((stored.root / key / name).read_bytes()).hexdigest() == told
    return told
