"""Events and lists become keys."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.observed import RunKey
from finetune_operator.watched import WatchedRuns

BLOG, SHOP = RunKey("demo", "blog"), RunKey("demo", "shop")


class Keys:
    """A queue that only remembers."""

    def __init__(self) -> None:
        self.added: list[RunKey] = []
        self.forgotten: list[RunKey] = []

    def add(self, key: RunKey) -> None:
        self.added.append(key)

    def forget(self, key: RunKey) -> None:
        self.forgotten.append(key)


def a_body(name: str, target: str = "chat", namespace: str = "demo") -> dict[str, object]:
    spec = {"rollout": {"target": {"deployment": {"name": target}}}}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def test_a_deployment_wakes_the_runs_that_roll_out_to_it():
    queue = Keys()
    runs = WatchedRuns(queue)
    runs.listed("demo", [a_body("blog"), a_body("shop", "store")])
    queue.added.clear()

    runs.deployment_changed("demo", "chat")
    runs.deployment_changed("other", "chat")
    runs.deployment_changed("demo", "something")

    assert queue.added == [BLOG]


def test_a_child_wakes_its_run_and_a_stranger_nobody():
    queue = Keys()
    runs = WatchedRuns(queue)

    runs.child_changed({"metadata": {"namespace": "demo", "labels": {"finetune-operator.io/run": "blog"}}})
    runs.child_changed({"metadata": {"namespace": "demo", "labels": {}}})

    assert queue.added == [BLOG]


def test_a_run_that_vanished_unseen_is_noticed_by_the_next_list():
    queue = Keys()
    runs = WatchedRuns(queue)
    runs.listed("demo", [a_body("blog"), a_body("shop")])
    runs.listed("other", [])

    runs.listed("demo", [a_body("shop")])

    assert queue.forgotten == [BLOG]
    assert len(runs) == 1


def test_a_list_of_all_namespaces_notices_what_is_gone_from_any():
    queue = Keys()
    runs = WatchedRuns(queue)
    runs.listed("*", [a_body("blog"), a_body("blog", namespace="other")])

    runs.listed("*", [a_body("blog")])

    assert queue.forgotten == [RunKey("other", "blog")]


def test_a_run_that_ended_is_known_but_never_looked_at_again():
    queue = Keys()
    runs = WatchedRuns(queue)
    over = a_body("blog") | {"status": {"phase": "Succeeded", "observedGeneration": 2}}
    over["metadata"] = {"name": "blog", "namespace": "demo", "generation": 2}

    runs.listed("demo", [over])
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
    runs = WatchedRuns(Keys(), clock)
    runs.run_changed(versioned("blog", "1"))
    runs.listed("demo", [versioned("blog", "1")])
    assert runs.silent_seconds() == 0

    runs.listed("demo", [versioned("blog", "2")])
    clock.seconds += 60
    runs.listed("demo", [versioned("blog", "3")])
    assert runs.silent_seconds() == 60

    runs.run_changed(versioned("blog", "3"))
    assert runs.silent_seconds() == 0


def test_silence_counts_from_the_new_watch_and_ends_with_the_run():
    clock = Clock()
    runs = WatchedRuns(Keys(), clock)
    runs.listed("demo", [versioned("blog", "1")])
    clock.seconds += 60

    runs.expect_events()
    clock.seconds += 5
    assert runs.silent_seconds() == 5

    runs.run_gone(BLOG)
    assert runs.silent_seconds() == 0


def test_a_deployment_that_is_gone_is_forgotten():
    runs = WatchedRuns(Keys())
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
    runs = WatchedRuns(queue)
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
    runs = WatchedRuns(queue)
    runs.run_changed(a_training_body("1"))
    queue.added.clear()

    runs.run_changed(a_training_body("2", **changes))

    assert queue.added == [BLOG]


def test_a_run_that_comes_back_under_its_name_is_new():
    queue = Keys()
    runs = WatchedRuns(queue)
    runs.run_changed(a_training_body("1"))
    runs.run_gone(BLOG)
    queue.added.clear()

    runs.run_changed(a_training_body("2"))

    assert queue.added == [BLOG]
