"""Where all runs are, counted."""

from __future__ import annotations

from typing import Any

from finetune_contract.run_status import Phase
from finetune_contract.stage_protocol import Stage
from finetune_operator.census import Census
from finetune_operator.observed import RunKey
from tests.finetune_operator.samples import at, later
from tests.finetune_operator.small_queue import listed, watched

BLOG, SHOP = RunKey("demo", "blog"), RunKey("demo", "shop")


def a_body(phase: str = "", **attempt: Any) -> dict[str, Any]:
    status = {"phase": phase} if phase else {}
    return {
        "metadata": {"namespace": "demo"},
        "status": status | ({"attempts": [attempt]} if attempt else {}),
    }


WAITING = {"stage": "train", "number": 0, "job": "j", "result": "Running", "startedAt": at(0)}


def test_runs_are_counted_by_namespace_and_phase_and_one_that_was_not_looked_at_is_pending():
    census = Census()
    census.seen(BLOG, a_body())
    census.seen(SHOP, a_body("Succeeded"))
    census.seen(RunKey("web", "faq"), a_body("Succeeded"))

    counted = {place: number for place, number in census.by_phase().items() if number}
    assert counted == {
        ("demo", Phase.PENDING): 1,
        ("demo", Phase.SUCCEEDED): 1,
        ("web", Phase.SUCCEEDED): 1,
    }


def test_a_phase_that_no_run_is_in_is_0_and_a_namespace_without_runs_is_not_told_of():
    census = Census()
    census.seen(BLOG, a_body("Training"))
    census.seen(BLOG, a_body("Packaging"))

    assert census.by_phase()["demo", Phase.TRAINING] == 0
    assert len(census.by_phase()) == len(Phase)
    census.gone(BLOG)
    assert census.by_phase() == {}


def test_the_longest_wait_for_a_node_is_told_until_it_is_over():
    census = Census()
    census.seen(BLOG, a_body("Training", **WAITING))
    census.seen(SHOP, a_body("Training", **(WAITING | {"startedAt": at(40)})))

    assert census.longest_waits(later(100))[Stage.TRAIN] == 100
    census.seen(BLOG, a_body("Training", **(WAITING | {"pods": [{"name": "p"}]})))
    assert census.longest_waits(later(100))[Stage.TRAIN] == 60
    census.gone(SHOP)
    assert census.longest_waits(later(100)) == dict.fromkeys(Stage, 0.0)


def test_watched_runs_are_in_the_census_from_first_sight_to_their_end():
    runs = watched()
    body = {"metadata": {"name": "blog", "namespace": "demo", "generation": 1}, "spec": {}}
    runs.run_changed(body)
    assert runs.census.by_phase()["demo", Phase.PENDING] == 1

    listed(runs, "demo", [body | {"status": {"phase": "Failed", "observedGeneration": 1}}])
    assert runs.census.by_phase()["demo", Phase.FAILED] == 1

    listed(runs, "demo", [])
    assert runs.census.by_phase() == {}
