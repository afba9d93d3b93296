"""A run in YAML: accepted as the API server would accept it, refused with place, fact and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from finetune_contract.run_document import InvalidRunDocument, parse_run, parse_spec
from finetune_contract.run_spec import (
    GeneratorSpec,
    RolloutMode,
    WeaviateSpec,
    WebsiteSource,
    WordPressSource,
)

SMALLEST = """
apiVersion: finetune-operator.io/v1alpha1
kind: FineTuneRun
metadata: {name: docs, namespace: team}
spec:
  baseModel: {uri: hf://owner/name@main}
  dataset:
    sources: [{name: site, wordpress: {url: "https://site.example"}}]
  store: {s3: {bucket: models}}
"""


def run_with(path: str, value: object) -> dict[str, Any]:
    """The smallest run with one value put in at a path such as `spec/dataset/sources/0/name`."""
    run: dict[str, Any] = yaml.safe_load(SMALLEST)
    *folders, last = path.split("/")
    here: Any = run
    for step in folders:
        here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
    here[last] = value
    return run


def faults(document: str | dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(InvalidRunDocument) as caught:
        parse_run(document)
    return caught.value.lines


def test_the_smallest_run_is_filled_in() -> None:
    metadata, spec = parse_run(SMALLEST)

    assert (metadata.name, metadata.namespace) == ("docs", "team")
    assert spec.dataset.sources[0].wordpress is not None
    assert spec.training.lora.rank == 16
    assert spec.rollout.mode is RolloutMode.NONE


def test_the_quickstart_is_accepted() -> None:
    example = Path(__file__).parents[2] / "examples/quickstart/finetunerun.yaml"

    metadata, spec = parse_run(example.read_text(encoding="utf-8"))

    assert metadata.name == "marrowby"
    assert spec.rollout.mode is RolloutMode.AUTOMATIC


def test_an_object_that_came_back_from_the_cluster_is_accepted() -> None:
    run = run_with("status", {"observedGeneration": -1})
    run["metadata"]["uid"] = "1234"

    assert parse_run(run)[0].name == "docs"


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        (
            "spec/training/microBatchSize",
            3,
            "spec.training.microBatchSize: 3 does not divide effectiveBatchSize 16; choose 1, 2, 4, 8 or 16",
        ),
        (
            "spec/dataset/split/evaluation",
            0.7,
            "spec.dataset.split.evaluation: 0.7 is over 0.5; choose 0.02 to 0.5",
        ),
        (
            "spec/training/epochs",
            0,
            "spec.training.epochs: 0 is not over 0; choose more than 0 and at most 100",
        ),
        (
            "spec/training/lora/rank",
            0,
            "spec.training.lora.rank: 0 is under 1; choose a whole number 1 to 512",
        ),
        ("spec/baseModle", {}, "spec.baseModle: unknown field; did you mean baseModel?"),
        (
            "spec/training/lora/q",
            1,
            "spec.training.lora.q: unknown field; known here: rank, alpha, dropout, rankStabilized",
        ),
        ("sepc", {}, "sepc: unknown field; did you mean spec?"),
        (
            "spec/dataset/promptFormat",
            "chatt",
            'spec.dataset.promptFormat: "chatt" is not known; choose chat, alpaca, question-answer; did you mean chat?',
        ),
        (
            "spec/training/epochs",
            "three",
            'spec.training.epochs: found text "three"; choose more than 0 and at most 100',
        ),
        (
            "spec/training/gradientCheckpointing",
            1,
            "spec.training.gradientCheckpointing: found a number 1; choose true or false",
        ),
        ("spec/suspend", "no", 'spec.suspend: found text "no"; choose true or false'),
        (
            "spec/dataset/sources",
            [{"name": "site"}],
            "spec.dataset.sources[0]: has no kind; set exactly one of wordpress, website, markdown, weaviate",
        ),
        (
            "spec/evaluation/gates",
            [{"metric": "stop_rate"}],
            "spec.evaluation.gates[0]: a gate needs minimum or minimumGain; set one of them, or both",
        ),
        (
            "spec/rollout/mode",
            "Manual",
            "spec.rollout.target: is needed with mode Manual; name the Deployment in target.deployment.name, "
            "or set mode to None",
        ),
        (
            "spec/rollout",
            {"mode": "Manual", "target": {}},
            "spec.rollout.target: has no kind; set exactly one of deployment",
        ),
        (
            "spec/dataset/exampleKinds",
            ["url", "url"],
            "spec.dataset.exampleKinds: url is there twice; name each once",
        ),
        ("spec/store", {}, "spec.store.s3: is missing; write at least its fields bucket"),
        ("spec/dataset/sources", [], "spec.dataset.sources: has 0 entries; write a list of 1 to 8 entries"),
        (
            "metadata/name",
            "Docs!",
            "metadata.name: \"Docs!\" is not a name; use lower case letters, digits and '-'",
        ),
        (
            "metadata/name",
            "docs\n",
            "metadata.name: \"docs\\n\" is not a name; use lower case letters, digits and '-'",
        ),
        ("metadata/name", "d" * 46, "metadata.name: has 46 characters; choose at most 45"),
        ("kind", "FineTune", 'kind: "FineTune"; write FineTuneRun'),
    ],
)
def test_a_fault_is_told_by_place_fact_and_remedy(path: str, value: object, line: str) -> None:
    assert faults(run_with(path, value)) == (line,)


def test_an_automatic_rollout_needs_a_gate() -> None:
    run = run_with("spec/rollout", {"target": {"deployment": {"name": "chat"}}})
    run["spec"]["evaluation"] = {"gates": []}

    assert faults(run) == (
        "spec.evaluation.gates: is empty, and rollout.mode is Automatic; "
        "add a gate, or set rollout.mode to Manual",
    )


def test_all_faults_are_told_at_once() -> None:
    run = run_with("spec/training/lora/rank", 0)
    run["spec"]["dataset"]["split"] = {"evaluation": 0.7}
    run["metadata"] = {}

    assert [fault.split(":")[0] for fault in faults(run)] == [
        "metadata.name",
        "spec.dataset.split.evaluation",
        "spec.training.lora.rank",
    ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec/baseModel/tokenSecretRef", "hf_hunter2"),
        ("spec/baseModel/tokenSecretRef", {"name": "HF_hunter2", "key": "token"}),
        ("spec/dataset/sources/0/wordpress/url", "ftp://admin:hunter2@site.example"),
        ("spec/dataset/sources/0/wordpress/password", "hunter2"),
        ("spec/store/s3/credentialsSecretRef", ["hunter2"]),
    ],
)
def test_what_may_be_a_secret_is_not_repeated(path: str, value: object) -> None:
    assert "hunter2" not in "\n".join(faults(run_with(path, value)))


@pytest.mark.parametrize(
    "of_spec",
    [
        lambda url: WordPressSource(url=url),
        lambda url: WebsiteSource(url=url),
        lambda url: WeaviateSpec(url=url),
        lambda url: GeneratorSpec(url=url, model="m"),
    ],
)
def test_an_address_with_a_password_is_refused_and_no_exception_repeats_it(of_spec):
    with pytest.raises(ValidationError) as refused:
        of_spec("https://ada:hunter2@site.example/")

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("spec: [", "line 1, column 8: not YAML"),
        ("- 1", "the file: holds a list"),
        ("", "the file: holds 0 documents; write one FineTuneRun"),
        (f"{SMALLEST}---{SMALLEST}", "the file: holds 2 documents; write one FineTuneRun"),
        ("\x00", "the file: not YAML"),
    ],
)
def test_text_that_is_no_run_is_refused_by_place(text: str, start: str) -> None:
    assert faults(text)[0].startswith(start)


def test_a_spec_alone_is_checked_in_the_same_words() -> None:
    with pytest.raises(InvalidRunDocument, match=r"^spec\.baseModel: is missing"):
        parse_spec(
            {
                "dataset": {"sources": [{"name": "a", "wordpress": {"url": "http://a.b"}}]},
                "store": {"s3": {"bucket": "abc"}},
            }
        )
