"""Events and lists become keys."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.children import Children, children_of
from finetune_operator.memory import Memory
from finetune_operator.observed import RunKey
from tests.finetune_operator.small_queue import Keys, listed, watched

BLOG, SHOP = RunKey("demo", "blog"), RunKey("demo", "shop")


def a_body(name: str, target: str = "chat", namespace: str = "demo") -> dict[str, object]:
    spec = {"rollout": {"target": {"deployment": {"name": target}}}}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def test_a_deployment_wakes_the_runs_that_roll_out_to_it():
    queue = Keys()
    runs = watched(queue)
    listed(runs, "demo", [a_body("blog"), a_body("shop", "store")])
    queue.added.clear()

    runs.deployment_changed("demo", "chat")
    runs.deployment_changed("other", "chat")
    runs.deployment_changed("demo", "something")

    assert queue.added == [BLOG]


def a_child(version: str = "1", *, name: str = "blog", **changes: Any) -> dict[str, Any]:
    labels = {"finetune-operator.io/run": name} if name else {}
    return {"metadata": {"namespace": "demo", "labels": labels, "resourceVersion": version}} | changes


COMPLETE = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
OVER: dict[str, Any] = {
    "metadata": {"name": "blog", "namespace": "demo", "generation": 2},
    "spec": {},
    "status": {"phase": "Failed", "observedGeneration": 2},
}


def test_a_child_wakes_its_run_and_a_stranger_nobody():
    queue = Keys()
    runs = watched(queue)
    listed(runs, "demo", [a_body("blog")])
    queue.added.clear()

    runs.job_changed(a_child())
    runs.pod_changed(a_child())
    runs.job_changed(a_child(name=""))

    assert queue.added == [BLOG, BLOG]


def test_a_child_that_a_look_has_read_already_is_no_news_until_it_changes_or_goes():
    queue, memory = Keys(), Memory[Children]()
    runs = watched(queue, memory)
    listed(runs, "demo", [a_body("blog")])
    remember(memory, jobs=[a_child("7")], pods=[a_child("8")])
    queue.added.clear()

    runs.job_changed(a_child("7"))
    runs.pod_changed(a_child("8"))
    assert queue.added == []
    assert memory.recall(BLOG) is not None

    runs.pod_changed(a_child("8"), gone=True)
    assert queue.added == [BLOG]
    assert memory.recall(BLOG) is None


@pytest.mark.parametrize(
    ("child", "gone", "woken"),
    [
        (a_child(), False, True),
        (a_child(**COMPLETE), False, False),
        (a_child(), True, False),
        ({"metadata": a_child()["metadata"] | {"deletionTimestamp": "2026-03-01T12:00:00Z"}}, False, False),
    ],
    ids=["goes on", "ended", "is gone", "is told to stop"],
)
@pytest.mark.parametrize("known", [True, False], ids=["run ended", "run unknown"])
def test_of_a_run_that_is_not_under_way_only_a_job_that_goes_on_is_worth_a_look(child, gone, woken, known):
    queue = Keys()
    runs = watched(queue)
    if known:
        runs.run_changed(OVER)

    runs.job_changed(child, gone=gone)
    runs.pod_changed(child, gone=gone)

    assert queue.added == [BLOG] * woken


def remember(memory: Memory[Children], jobs: list[dict[str, Any]], pods: list[dict[str, Any]]) -> None:
    memory.keep(BLOG, memory.begin(BLOG), a_body("blog"), children_of(jobs, pods))


@pytest.mark.parametrize(
    ("jobs", "pods", "woken"),
    [
        ({"7"}, {"8"}, False),
        ({"9"}, {"8"}, True),
        ({"7"}, {"9"}, True),
        ({"7"}, set(), True),
        (set(), set(), True),
        ({"7", "9"}, {"8"}, True),
    ],
    ids=["as read", "Job changed", "pod changed", "pod ended or gone", "all gone", "another Job"],
)
def test_a_list_of_children_finds_what_no_event_told(jobs, pods, woken):
    queue, memory = Keys(), Memory[Children]()
    runs = watched(queue, memory)
    listed(runs, "demo", [a_body("blog")])
    remember(memory, jobs=[a_child("6", **COMPLETE), a_child("7")], pods=[a_child("8")])
    queue.added.clear()

    runs.listed_children("demo", {BLOG: jobs}, {BLOG: pods})

    assert queue.added == [BLOG] * woken
    assert (memory.recall(BLOG) is None) is woken


def test_a_list_of_other_namespaces_says_nothing_about_a_run():
    queue, memory = Keys(), Memory[Children]()
    runs = watched(queue, memory)
    remember(memory, jobs=[a_child("7")], pods=[])

    runs.listed_children("other", {}, {})

    assert queue.added == []


def test_a_job_that_goes_on_after_its_run_had_ended_is_found_by_a_list_and_looked_at_once():
    queue = Keys()
    runs = watched(queue)
    runs.run_changed(OVER)

    for versions in ({"7"}, {"7"}, {"8"}):
        runs.listed_children("demo", {BLOG: versions}, {})

    assert queue.added == [BLOG, BLOG]


def test_a_list_looks_only_at_runs_that_nobody_told_of_and_spreads_those_that_nobody_awaits():
    queue = Keys()
    runs = watched(queue)
    bodies = [versioned(name, "1") for name in ("awaited", "resting", "blog")]
    for body in bodies:
        runs.run_changed(body)
    queue.expected = {RunKey("demo", "awaited")}
    queue.added.clear()

    listed(runs, "demo", [*bodies[:2], versioned("blog", "2")])

    assert queue.added == [BLOG]
    assert queue.added_later == [(RunKey("demo", "resting"), 30.0)]


def test_a_run_that_a_list_showed_first_is_not_looked_at_again_for_the_event_that_says_the_same():
    queue = Keys()
    runs = watched(queue)
    listed(runs, "demo", [versioned("blog", "1")])

    runs.run_changed(versioned("blog", "1"))

    assert queue.added == [BLOG]


def test_a_run_that_vanished_unseen_is_noticed_by_the_next_list():
    queue = Keys()
    runs = watched(queue)
    listed(runs, "demo", [a_body("blog"), a_body("shop")])
    listed(runs, "other", [])

    listed(runs, "demo", [a_body("shop")])

    assert queue.forgotten == [BLOG]
    assert len(runs) == 1


def test_a_list_of_all_namespaces_notices_what_is_gone_from_any():
    queue = Keys()
    runs = watched(queue)
    listed(runs, "*", [a_body("blog"), a_body("blog", namespace="other")])

    listed(runs, "*", [a_body("blog")])

    assert queue.forgotten == [RunKey("other", "blog")]


def test_a_run_that_ended_is_known_but_never_looked_at_again():
    queue = Keys()
    runs = watched(queue)
    over = a_body("blog") | {"status": {"phase": "Succeeded", "observedGeneration": 2}}
    over["metadata"] = {"name": "blog", "namespace": "demo", "generation": 2}

    listed(runs, "demo", [over])
    runs.deployment_changed("demo", "chat")
    quiet = list(queue.added)
    over["metadata"] = {"name": "blog", "namespace": "demo", "generation": 3}
    runs.run_changed(over)

    assert quiet == []
    assert queue.added == [BLOG]
    assert len(runs) == 1


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def versioned(name: str, version: str) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "demo", "resourceVersion": version}, "spec": {}}


def test_a_change_that_only_the_list_shows_counts_as_silence_until_an_event_tells_of_the_run():
    clock = Clock()
    runs = watched(clock=clock)
    runs.run_changed(versioned("blog", "1"))
    listed(runs, "demo", [versioned("blog", "1")])
    assert runs.silent_seconds() == 0

    listed(runs, "demo", [versioned("blog", "2")])
    clock.seconds += 60
    listed(runs, "demo", [versioned("blog", "3")])
    assert runs.silent_seconds() == 60

    runs.run_changed(versioned("blog", "3"))
    assert runs.silent_seconds() == 0


def test_silence_counts_from_the_new_watch_and_ends_with_the_run():
    clock = Clock()
    runs = watched(clock=clock)
    listed(runs, "demo", [versioned("blog", "1")])
    clock.seconds += 60

    runs.expect_events()
    clock.seconds += 5
    assert runs.silent_seconds() == 5

    runs.run_gone(BLOG)
    assert runs.silent_seconds() == 0


def test_a_deployment_that_is_gone_is_forgotten():
    runs = watched()
    for number in range(3):
        runs.deployment_changed("preview", f"branch-{number}", f"uid-{number}")
        runs.deployment_changed("preview", f"branch-{number}")

    assert runs.deployments_known == 0


def a_training_body(version: str, **changes: Any) -> dict[str, Any]:
    status = {"phase": "Training", "progress": {"step": int(version)}} | changes.pop("status", {})
    metadata = {"name": "blog", "namespace": "demo", "uid": "u", "generation": 1, "resourceVersion": version}
    return {"metadata": metadata | changes, "spec": {}, "status": status}


def test_the_words_that_the_operator_writes_into_a_status_do_not_wake_it():
    queue = Keys()
    runs = watched(queue)
    runs.run_changed(a_training_body("1"))
    queue.added.clear()

    for version in "234":
        runs.run_changed(a_training_body(version))

    assert queue.added == []
    assert runs.silent_seconds() == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 2},
        {"uid": "another"},
        {"deletionTimestamp": "2026-03-01T12:00:00Z"},
        {"status": {"phase": "Packaging"}},
        {"status": {"rollout": {"phase": "Verifying"}}},
    ],
    ids=["spec", "made anew", "deleted", "phase", "rollout"],
)
def test_everything_else_about_a_run_wakes_the_operator(changes):
    queue = Keys()
    runs = watched(queue)
    runs.run_changed(a_training_body("1"))
    queue.added.clear()

    runs.run_changed(a_training_body("2", **changes))

    assert queue.added == [BLOG]


def test_a_run_that_comes_back_under_its_name_is_new():
    queue = Keys()
    runs = watched(queue)
    runs.run_changed(a_training_body("1"))
    runs.run_gone(BLOG)
    queue.added.clear()

    runs.run_changed(a_training_body("2"))

    assert queue.added == [BLOG]


@pytest.mark.parametrize(("version", "kept"), [("1", True), ("2", False)])
@pytest.mark.parametrize("told_by", ["list", "event"])
def test_after_a_start_a_run_is_looked_at_and_what_was_read_of_that_very_version_holds(
    version, kept, told_by
):
    queue, memory = Keys(), Memory[Children]()
    runs = watched(queue, memory)
    memory.keep(BLOG, memory.begin(BLOG), versioned("blog", "1"), children_of([], []), listed=True)

    if told_by == "list":
        listed(runs, "demo", [versioned("blog", version)])
    else:
        runs.run_changed(versioned("blog", version))

    assert queue.added == [BLOG]
    assert (memory.recall(BLOG) is not None) is kept


def test_the_age_of_the_last_event_grows_until_one_of_any_kind_comes():
    clock = [0.0]
    runs = watched(clock=lambda: clock[0])

    clock[0] = 30.0
    assert runs.event_age_seconds() == 30
    runs.deployment_changed("demo", "something")
    assert runs.event_age_seconds() == 0
