"""`make demo`, `make demo-retrain` and `make demo-down` as a user runs them, on a node of their own.

Training is cut to one small step, so the answers' quality is not judged here: that every part hands on to the next is.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console

from demo.cluster import Cluster
from demo.manifests import NAMESPACE
from demo.parts import Images, Setting
from demo.questions import demo_questions, retrain_story
from demo.runs import jobs_of
from demo.story import DEPLOYMENT, Story
from devcluster import lifecycle, namespaces, wordpress
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


def test_a_schedule_sees_that_a_post_has_changed_and_takes_the_site_to_the_model_of_it(story: Story) -> None:
    """The post becomes again what it was: its model is in the store, so that nothing is trained here."""
    cluster = story.setting.cluster()
    first, second = the_run(cluster, "marrowby"), the_run(cluster, "marrowby-2")
    content = {"minChangedPosts": 1, "debounceSeconds": 0, "checkEverySeconds": 60}
    schedule = {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneSchedule",
        "metadata": {"name": "marrowby", "namespace": NAMESPACE},
        "spec": {"onContentChange": content, "template": {"spec": second["spec"]}},
    }
    cluster.apply([schedule])
    newest = wait_for_run(cluster, lambda name: True, 240)
    changed = retrain_story()
    wordpress.set_post(
        lifecycle.found_wordpress(story.setting.instance), changed.slug, changed.new, changed.old
    )

    status = wait_for_run(cluster, lambda name: name != newest["lastRun"]["name"], 300)

    assert newest["live"]["runKey"] == second["status"]["runKey"]
    assert status["lastRun"]["cause"] == "ContentChange"
    assert status["live"]["runKey"] == first["status"]["runKey"]
    assert served_model(cluster) == "sha256:" + first["status"]["artifact"]["manifestSha256"]
    made = [run["metadata"]["name"] for run in runs_of_schedule(cluster)]
    assert not [job for name in made for job in jobs_of(cluster, name) if "-train-" in job]


def runs_of_schedule(cluster: Cluster) -> list[dict[str, Any]]:
    listed = cluster.get("finetuneruns", "-n", NAMESPACE, "-l", "finetune-operator.io/schedule=marrowby")
    runs: list[dict[str, Any]] = listed["items"] if listed else []
    return runs


def wait_for_run(cluster: Cluster, is_it: Callable[[str], bool], seconds: float) -> dict[str, Any]:
    """The schedule's status once such a run of it has succeeded."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        schedule = cluster.get("finetuneschedule", "marrowby", "-n", NAMESPACE) or {}
        status: dict[str, Any] = schedule.get("status", {})
        run = status.get("lastRun") or {}
        if run.get("phase") == "Succeeded" and is_it(run["name"]):
            return status
        time.sleep(2)
    raise AssertionError(f"not so after {seconds} s: {json.dumps(status, indent=1)}")
