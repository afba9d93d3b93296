"""`make demo`, `make demo-retrain` and `make demo-down` as a user runs them, on a node of their own.

Training is cut to one small step, so the answers' quality is not judged here: that every part hands on to the next is.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from demo.cluster import Cluster
from demo.manifests import NAMESPACE
from demo.parts import Images, Setting
from demo.questions import demo_questions
from demo.story import DEPLOYMENT, Story
from devcluster import namespaces
from devcluster.paths import Instance
from devcluster.progress import Progress

pytestmark = pytest.mark.on_cluster

ONE_SMALL_STEP = [
    "training.maxSteps=1",
    "training.effectiveBatchSize=2",
    "training.microBatchSize=2",
    "evaluation.gates=[{metric: stop_rate, minimum: 0}]",
    "evaluation.maxQuestions=4",
    "evaluation.maxAnswerTokens=8",
]


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    setting = Setting(Instance("loop"), kubeconfig=None, images=Images())
    told = Story(setting, Progress(), Console(file=io.StringIO(), width=140), ONE_SMALL_STEP)
    yield told
    assert told.down() == 0
    assert namespaces.leftovers(setting.instance) == []


def the_run(cluster: Cluster, name: str) -> dict[str, Any]:
    run = cluster.get("finetunerun", name, "-n", NAMESPACE)
    assert run is not None
    return run


def served_model(cluster: Cluster) -> str:
    deployment = cluster.get("deployment", DEPLOYMENT, "-n", NAMESPACE)
    assert deployment is not None
    pod = deployment["spec"]["template"]["spec"]
    entries = [
        entry
        for container in pod["initContainers"] + pod["containers"]
        for entry in container.get("env", [])
        if entry["name"] == "MODEL_ID"
    ]
    assert len(entries) == 1
    return str(entries[0]["value"])


def test_posts_become_a_model_that_answers_through_django(story: Story) -> None:
    story.up()

    cluster = story.setting.cluster()
    status = the_run(cluster, "marrowby")["status"]
    assert status["phase"] == "Succeeded"
    assert [attempt["stage"] for attempt in status["attempts"]] == ["dataset", "train", "package", "evaluate"]
    assert served_model(cluster) == "sha256:" + status["artifact"]["manifestSha256"]
    answers = json.loads((story.setting.instance.state / "answers-after.json").read_text())
    assert len(answers) == len(demo_questions())
    assert {answer["model"] for answer in answers if answer["model"]} == {served_model(cluster)}


def test_a_changed_post_makes_another_model_and_the_same_run_again_trains_nothing(story: Story) -> None:
    cluster = story.setting.cluster()
    before = served_model(cluster)

    story.retrain()  # ends with the second run deleted and applied again

    status = the_run(cluster, "marrowby-2")["status"]
    assert served_model(cluster) != before
    assert status["adopted"]
    assert [attempt["stage"] for attempt in status["attempts"]] == ["dataset"]
    assert status["runKey"] != the_run(cluster, "marrowby")["status"]["runKey"]
