"""The generated CRD on a real API server: what it accepts, fills in, refuses, and in which words."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.kubectl import tools_folder
from finetune_contract.run_document import InvalidRunDocument, parse_spec
from finetune_operator.api_server import UNKNOWN_FIELD

pytestmark = pytest.mark.on_cluster

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds/finetuneruns.yaml"
CRD_NAME = "crd/finetuneruns.finetune-operator.io"
EXAMPLES = sorted(ROOT.glob("examples/*/finetunerun.yaml"))
EXAMPLE = ROOT / "examples/gemma-2-2b/finetunerun.yaml"
Run = dict[str, Any]


class Api:
    """kubectl in one namespace of its own."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace

    def call(self, *arguments: str, document: Run | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(tools_folder() / "kubectl"), "--namespace", self.namespace, *arguments],
            input=None if document is None else json.dumps(document),
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def accepted(self, *arguments: str, document: Run | None = None) -> str:
        done = self.call(*arguments, document=document)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str, document: Run | None = None) -> str:
        done = self.call(*arguments, document=document)
        assert done.returncode != 0, f"accepted: {done.stdout}"
        return done.stderr

    def create(self, run: Run) -> Run:
        made: Run = json.loads(self.accepted("create", "--filename=-", "--output=json", document=run))
        return made

    def refusal_of(self, run: Run) -> str:
        return self.refused("create", "--dry-run=server", "--filename=-", document=run)

    def patch(self, run: Run, spec: Run) -> tuple[str, ...]:
        return (
            *("patch", "finetunerun", run["metadata"]["name"], "--type=merge"),
            f"--patch={json.dumps({'spec': spec})}",
        )


@pytest.fixture(scope="module")
def api(cluster: Any) -> Iterator[Api]:
    """The CRD as generated. One that a chart installed is updated and stays; one that was not there goes again."""
    api = Api(Path(cluster.kubeconfig), f"crd-{uuid.uuid4().hex[:8]}")
    was_there = api.call("get", CRD_NAME).returncode == 0
    api.accepted("apply", "--server-side", "--force-conflicts", f"--filename={CRD}")
    # A CRD that was made this moment has no list of conditions yet, and `wait` fails on that.
    api.accepted("wait", "--for=jsonpath={.status.acceptedNames.kind}=FineTuneRun", CRD_NAME, "--timeout=60s")
    api.accepted("wait", "--for=condition=Established", CRD_NAME, "--timeout=60s")
    api.accepted("create", "namespace", api.namespace)
    yield api
    api.accepted("delete", "namespace", api.namespace, "--wait=false")
    if not was_there:
        api.accepted("delete", CRD_NAME, "--timeout=60s")


def run_from(example: Path, **spec: Any) -> Run:
    """A run of that example under a fresh name, with top-level spec fields merged in."""
    run: Run = yaml.safe_load(example.read_text(encoding="utf-8"))
    run["metadata"] = {"name": f"run-{uuid.uuid4().hex[:8]}"}
    for field, value in spec.items():
        old = run["spec"].get(field)
        run["spec"][field] = {**old, **value} if isinstance(old, dict) else value
    return run


def suspended(example: Path = EXAMPLE) -> Run:
    """A run that no operator starts, wherever this test runs."""
    return run_from(example, suspend=True)


@pytest.fixture(scope="module")
def live(api: Api) -> Run:
    return api.create(suspended())


# What is accepted


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.parent.name)
def test_every_example_is_accepted(api: Api, example: Path) -> None:
    made = api.create(suspended(example))

    assert made["spec"]["policy"]["stageDeadlineSeconds"] > 0


def test_a_fresh_run_has_defaults_and_a_status_that_nobody_takes_for_finished(api: Api) -> None:
    run = suspended()
    for field in ("training", "evaluation", "rollout", "resources", "scheduling", "policy", "packaging"):
        run["spec"].pop(field)

    made = api.create(run)

    assert made["status"] == {"observedGeneration": -1}
    assert made["spec"]["training"]["lora"] == {
        "rank": 16,
        "alpha": 32,
        "dropout": 0,
        "rankStabilized": False,
    }
    assert made["spec"]["evaluation"]["gates"] == [{"metric": "answer_recall", "minimumGain": 0.05}]
    assert made["spec"]["rollout"]["mode"] == "None"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.parent.name)
def test_cluster_and_laptop_fill_in_the_same(api: Api, example: Path) -> None:
    run = suspended(example)

    made = api.create(run)

    assert parse_spec(made["spec"]) == parse_spec(run["spec"])


def test_suspend_approval_and_time_to_live_may_change(api: Api, live: Run) -> None:
    for change in (
        {"suspend": False},
        {"suspend": True},
        {"rollout": {"approved": True}},
        {"rollout": {"smokeTest": {"questions": 0}}},
        {"ttlSecondsAfterFinished": 60},
    ):
        api.accepted(*api.patch(live, change))


def test_applying_the_same_file_again_changes_nothing(api: Api) -> None:
    run = suspended()
    apply = ("apply", "--server-side", "--filename=-", "--output=json")
    first, again, third = (json.loads(api.accepted(*apply, document=run)) for _ in range(3))

    assert first["metadata"]["generation"] == third["metadata"]["generation"] == 1
    assert again["metadata"]["resourceVersion"] == third["metadata"]["resourceVersion"]


# What is refused


def test_an_unknown_field_is_named(api: Api) -> None:
    said = api.refusal_of(run_from(EXAMPLE, baseModle={}))

    assert 'unknown field "spec.baseModle"' in said


def test_a_wrong_type_is_named(api: Api) -> None:
    said = api.refusal_of(run_from(EXAMPLE, training={"epochs": "three"}))

    assert "spec.training.epochs" in said
    assert "must be of type number" in said


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"training": {"microBatchSize": 3}},
            "spec.training.microBatchSize does not divide effectiveBatchSize: choose a divisor of it",
        ),
        ({"training": {"lora": {"rank": 0}}}, "spec.training.lora.rank: Invalid value: 0"),
        ({"evaluation": {"gates": []}}, "mode Automatic needs at least one gate in spec.evaluation.gates"),
        ({"evaluation": {"gates": [{"metric": "stop_rate"}]}}, "a gate needs minimum or minimumGain"),
        ({"rollout": {"target": None}}, "spec.rollout.target is needed unless spec.rollout.mode is None"),
        ({"rollout": {"target": {}}}, "spec.rollout.target needs exactly one kind: set one of deployment"),
        (
            {"rollout": {"target": {"deployment": {"name": "chat", "others": ["shop", "chat"]}}}},
            "others repeats the Deployment of name: name each Deployment once",
        ),
        (
            {"rollout": {"mode": "Publish", "target": {"deployment": {"name": "chat", "others": ["shop"]}}}},
            "spec.rollout.target.deployment.others needs mode Automatic or Manual",
        ),
        (
            {"dataset": {"sources": [{"name": "site"}]}},
            "a source needs exactly one kind: set one of wordpress",
        ),
        ({"dataset": {"sources": []}}, "spec.dataset.sources"),
        ({"dataset": {"exampleKinds": ["url", "url"]}}, "spec.dataset.exampleKinds[1]: Duplicate value"),
        ({"baseModel": {"uri": "google/gemma-2-2b"}}, "spec.baseModel.uri"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:40],
)
def test_a_run_that_cannot_work_is_refused_in_words_and_on_a_laptop_too(
    api: Api, spec: Run, words: str
) -> None:
    run = run_from(EXAMPLE, **spec)

    assert words in api.refusal_of(run)
    with pytest.raises(InvalidRunDocument):
        parse_spec(run["spec"])


def test_a_name_that_would_make_job_names_too_long_is_refused(api: Api) -> None:
    run = suspended()
    run["metadata"]["name"] = "d" * 46

    assert "metadata.name is longer than 45 characters: choose a shorter name" in api.refusal_of(run)


def test_two_sources_of_one_name_are_refused(api: Api) -> None:
    run = suspended()
    run["spec"]["dataset"]["sources"] *= 2

    assert "spec.dataset.sources[1]: Duplicate value" in api.refusal_of(run)


CHANGES: dict[str, Any] = {
    "baseModel": {"uri": "hf://google/gemma-2-2b@other"},
    "dataset": {"minDocuments": 51},
    "store": {"s3": {"prefix": "elsewhere"}},
    "training": {"epochs": 4},
    "packaging": {"gguf": "f16"},
    "evaluation": {"maxQuestions": 100},
    "resources": {"train": {"cpu": "5"}},
    "scheduling": {"queueName": "gpu"},
    "policy": {"stageDeadlineSeconds": 100},
    "trainerImage": "elsewhere:1",
    "rollout.mode": "Manual",
    "rollout.target": {"deployment": {"name": "other"}},
    "rollout.timeoutSeconds": 60,
    "rollout.servingPort": 9000,
}


@pytest.mark.parametrize("field", CHANGES)
def test_an_edit_of_what_is_fixed_is_refused(api: Api, live: Run, field: str) -> None:
    first, _, second = field.partition(".")
    change = {first: {second: CHANGES[field]} if second else CHANGES[field]}

    said = api.refused(*api.patch(live, copy.deepcopy(change)))

    assert f"spec.{field}: Forbidden: spec.{field} is immutable: create a new FineTuneRun instead" in said, (
        said
    )


def test_taking_out_a_fixed_field_is_refused(api: Api, live: Run) -> None:
    assert "spec.rollout.target is immutable" in api.refused(*api.patch(live, {"rollout": None}))


def test_a_cancelled_run_stays_cancelled(api: Api) -> None:
    run = api.create(suspended())
    api.accepted(*api.patch(run, {"cancel": True}))

    said = api.refused(*api.patch(run, {"cancel": False}))

    assert (
        "spec.cancel: Forbidden: spec.cancel cannot be taken back: create a new FineTuneRun instead" in said
    )
    assert "cannot be taken back" in api.refused(*api.patch(run, {"cancel": None}))


# What is shown


def test_columns_show_phase_step_loss_time_left_and_gate(api: Api) -> None:
    run = api.create(suspended())
    status = {
        "observedGeneration": 1,
        "phase": "Training",
        "runKey": "abc123",
        "progress": {"stage": "train", "step": 12, "totalSteps": 40, "loss": "1.234", "eta": "4m"}
        | {"tokensPerSecond": "2048"},
        "usage": {"gpuSeconds": 7200, "lostGpuSeconds": 60, "cost": "5.00EUR"},
        "evaluation": {"passed": True, "gate": "passed"},
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "Running",
                "message": "training",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    name = run["metadata"]["name"]
    api.accepted(
        *("patch", "finetunerun", name, "--subresource=status", "--type=merge"),
        f"--patch={json.dumps({'status': status})}",
    )

    header, row = api.accepted("get", "ftr", name).splitlines()
    wide_header, wide_row = api.accepted("get", "ftr", name, "--output=wide").splitlines()

    assert header.split() == ["NAME", "PHASE", "MODEL", "STEP", "LOSS", "ETA", "GATE", "AGE"]
    model = "hf://google/gemma-2-2b@main"
    assert row.split()[:-1] == [name, "Training", model, "12", "1.234", "4m", "passed"]
    told = ["REASON", "TOKENS/S", "GPU-SECONDS", "LOST", "COST", "RUNKEY"]
    assert wide_header.split()[7:13] == told
    assert wide_row.split()[7:13] == ["Running", "2048", "7200", "60", "5.00EUR", "abc123"]


def test_status_is_written_on_its_own_path_only(api: Api) -> None:
    run = suspended()
    run["status"] = {"phase": "Succeeded"}

    assert api.create(run)["status"] == {"observedGeneration": -1}


def test_a_status_word_that_is_not_in_the_contract_is_refused(api: Api, live: Run) -> None:
    name = live["metadata"]["name"]

    said = api.refused(
        *("patch", "finetunerun", name, "--subresource=status", "--type=merge"),
        '--patch={"status":{"phase":"Thinking"}}',
    )

    assert "status.phase: Unsupported value" in said


def test_a_status_that_the_crd_does_not_know_is_refused_in_the_words_that_the_operator_looks_for(
    api: Api, live: Run
) -> None:
    run = {key: live[key] for key in ("apiVersion", "kind")} | {
        "metadata": {"name": live["metadata"]["name"]}
    }
    newer = run | {"status": {"phase": "Pending", "moonPhase": "full"}}
    how = ("--server-side", "--subresource=status", "--validate=false", "--filename=-")

    assert f".status.moonPhase: {UNKNOWN_FIELD}" in api.refused("apply", *how, document=newer)


def test_explain_tells_what_a_field_means(api: Api) -> None:
    assert "Width of the adapter matrices" in api.accepted("explain", "finetunerun.spec.training.lora.rank")


def test_runs_are_listed_by_category(api: Api, live: Run) -> None:
    assert live["metadata"]["name"] in api.accepted("get", "finetune", "--output=name")
