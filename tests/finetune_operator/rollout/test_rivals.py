"""Which of several runs with one target goes, waits or gives way."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.rollout.rivals import Rivals, rivals


def a_body(name: str, made: int, phase: str = "", target: str = "chat") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": f"2026-03-01T12:00:{made:02d}Z",
        },
        "spec": {"rollout": {"target": {"deployment": {"name": target}}}},
        "status": {"rollout": {"phase": phase}} if phase else {},
    }


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ((), Rivals()),
        ((a_body("b", 9, "Progressing"),), Rivals(rolling="b")),
        ((a_body("b", 9, "Succeeded"),), Rivals(newer="b")),
        ((a_body("b", 1, "Succeeded"),), Rivals()),
        ((a_body("b", 9, "RolledBack"),), Rivals()),
        ((a_body("b", 9),), Rivals()),
        ((a_body("b", 9, "Succeeded", target="shop"),), Rivals()),
        ((a_body("b", 5, "Succeeded"),), Rivals(newer="b")),
        ((a_body("A", 5, "Succeeded"),), Rivals()),
        ((a_body("b", 8, "Succeeded"), a_body("c", 9, "Succeeded")), Rivals(newer="c")),
        ((a_body("b", 1, "RollingBack"), a_body("c", 9, "Succeeded")), Rivals("b", "c")),
    ],
)
def test_a_run_under_way_is_waited_for_and_a_newer_one_that_is_live_wins(others, expected):
    assert rivals("uid-a", "chat", (a_body("a", 5, "Preflight"), *others)) == expected


def test_of_two_runs_of_the_same_second_exactly_one_is_newer():
    bodies = (a_body("a", 5, "Succeeded"), a_body("b", 5, "Succeeded"))

    assert [rivals(f"uid-{name}", "chat", bodies).newer for name in "ab"] == ["b", ""]
