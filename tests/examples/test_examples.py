"""Every run under examples/ is what its README promises, and those for production need nothing of the demo."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from finetune_contract.run_document import parse_run
from finetune_contract.run_spec import (
    ComputeDtype,
    FineTuneRunSpec,
    GateMetric,
    PromptFormat,
    RolloutMode,
    Toleration,
)
from finetune_contract.schedule_spec import FineTuneScheduleSpec
from finetune_operator.schedules.ticks import Ticks

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNS = sorted(EXAMPLES.glob("*/finetunerun.yaml"))
PRODUCTION = ["gemma-2-2b", "llama-2-7b-chat"]


def spec_of(folder: str) -> FineTuneRunSpec:
    return parse_run((EXAMPLES / folder / "finetunerun.yaml").read_text(encoding="utf-8"))[1]


def test_the_three_examples_are_there() -> None:
    assert {run.parent.name for run in RUNS} >= {"quickstart", *PRODUCTION}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.parent.name)
def test_a_run_is_accepted(run: Path) -> None:
    metadata, _ = parse_run(run.read_text(encoding="utf-8"))

    assert metadata.namespace


def test_the_schedule_makes_the_run_that_lies_beside_it() -> None:
    folder = EXAMPLES / "gemma-2-2b"
    schedule = yaml.safe_load((folder / "finetuneschedule.yaml").read_text(encoding="utf-8"))
    run = yaml.safe_load((folder / "finetunerun.yaml").read_text(encoding="utf-8"))

    assert schedule["spec"]["template"]["spec"] == run["spec"]
    spec = FineTuneScheduleSpec.model_validate(schedule["spec"])
    assert spec.cron is not None
    assert Ticks(spec.cron, spec.time_zone).after(datetime(2026, 11, 26, tzinfo=UTC)) == datetime(
        2027, 1, 1, 2, tzinfo=UTC
    )


def test_the_run_in_the_readme_is_accepted() -> None:
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    shown = [block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "FineTuneRun" in block]

    assert shown
    for block in shown:
        parse_run(block)


@pytest.mark.parametrize("folder", PRODUCTION)
def test_a_production_run_asks_for_one_gpu_in_gpu_stages_only(folder: str) -> None:
    spec = spec_of(folder)

    assert spec.resources.train.gpu is not None
    assert spec.resources.train.gpu.count == 1
    assert spec.resources.train.gpu.resource_name == "nvidia.com/gpu"
    assert spec.resources.other.gpu is None
    assert spec.scheduling.tolerations == [
        Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    ]


@pytest.mark.parametrize("folder", PRODUCTION)
def test_a_production_run_is_quantised_in_nf4_twice(folder: str) -> None:
    quantization = spec_of(folder).training.quantization

    assert quantization.type == "nf4"
    assert quantization.double_quantization
    assert quantization.compute_dtype is ComputeDtype.BFLOAT16


@pytest.mark.parametrize("folder", PRODUCTION)
def test_a_production_run_goes_live_only_through_gates(folder: str) -> None:
    spec = spec_of(folder)
    gates = {gate.metric: gate for gate in spec.evaluation.gates}

    assert spec.rollout.mode is RolloutMode.AUTOMATIC
    assert spec.rollout.target is not None
    assert spec.rollout.target.deployment is not None
    assert (gates[GateMetric.ANSWER_RECALL].minimum_gain or 0) > 0
    assert (gates[GateMetric.REFUSAL_ACCURACY].minimum or 0) > 0
    assert (gates[GateMetric.STOP_RATE].minimum or 0) > 0


def test_gemma_as_a_base_model_gets_a_prompt_format_and_a_token() -> None:
    spec = spec_of("gemma-2-2b")

    assert spec.base_model.uri.startswith("hf://google/gemma-2-2b@")
    assert spec.base_model.token_secret_ref is not None
    assert spec.dataset.prompt_format is PromptFormat.QUESTION_ANSWER


def test_llama_as_a_chat_model_keeps_its_template_and_needs_no_token() -> None:
    spec = spec_of("llama-2-7b-chat")

    assert spec.base_model.uri.startswith("hf://NousResearch/Llama-2-7b-chat-hf@")
    assert spec.base_model.token_secret_ref is None
    assert spec.dataset.prompt_format is PromptFormat.CHAT


@pytest.mark.parametrize("folder", PRODUCTION)
def test_a_production_run_needs_nothing_of_the_demo(folder: str) -> None:
    text = (EXAMPLES / folder / "finetunerun.yaml").read_text(encoding="utf-8")

    assert not re.search(r"demo|marrowby|localhost|smollm|seaweed|:8333", text, re.IGNORECASE)
    assert spec_of(folder).store.s3.endpoint is None
    assert spec_of(folder).trainer_image is None


@pytest.mark.parametrize("folder", PRODUCTION)
def test_the_readme_makes_every_secret_with_the_keys_that_are_read(folder: str) -> None:
    spec = spec_of(folder)
    readme = (EXAMPLES / folder / "README.md").read_text(encoding="utf-8").replace("\\\n", "")
    made = {
        match["name"]: set(re.findall(r"--from-literal=(\w+)=", match["keys"]))
        for match in re.finditer(r"create secret generic (?P<name>\S+)(?P<keys>.*)", readme)
    }
    weaviate = spec.dataset.knowledge_base and spec.dataset.knowledge_base.weaviate
    wordpress = spec.dataset.sources[0].wordpress
    assert weaviate
    assert weaviate.api_key_secret_ref
    assert wordpress
    assert wordpress.credentials_secret_ref
    assert spec.store.s3.credentials_secret_ref
    wanted = {
        wordpress.credentials_secret_ref.name: {"username", "password"},
        weaviate.api_key_secret_ref.name: {weaviate.api_key_secret_ref.key},
        spec.store.s3.credentials_secret_ref.name: {"accessKeyId", "secretAccessKey"},
    }
    if spec.base_model.token_secret_ref:
        wanted[spec.base_model.token_secret_ref.name] = {spec.base_model.token_secret_ref.key}

    assert made == wanted


@pytest.mark.parametrize("folder", PRODUCTION)
def test_the_readme_names_the_run_and_its_namespace(folder: str) -> None:
    run = yaml.safe_load((EXAMPLES / folder / "finetunerun.yaml").read_text(encoding="utf-8"))
    readme = (EXAMPLES / folder / "README.md").read_text(encoding="utf-8")

    assert f"finetunerun/{run['metadata']['name']} " in readme
    assert f"create namespace {run['metadata']['namespace']}" in readme
    assert f"apply -f examples/{folder}/finetunerun.yaml" in readme
