"""What is remembered of a run holds until something happens to it."""

from __future__ import annotations

from typing import Any

from finetune_operator.memory import Memory, Sight
from finetune_operator.observed import RunKey

BLOG = RunKey("demo", "blog")
BODY: dict[str, Any] = {
    "metadata": {"name": "blog", "resourceVersion": "7"},
    "spec": {"suspend": False},
    "status": {"phase": "Training"},
}


def test_what_was_read_is_recalled_without_what_nobody_needs():
    memory = Memory[str]()
    managed = BODY | {"metadata": BODY["metadata"] | {"managedFields": [{"manager": "x"}]}}

    memory.keep(BLOG, memory.begin(BLOG), managed, "children")

    assert memory.recall(BLOG) == Sight(BODY, "children")
    assert len(memory) == 1


def test_what_happens_makes_forget():
    memory = Memory[str]()
    memory.keep(BLOG, memory.begin(BLOG), BODY, "children")

    memory.forget(BLOG)

    assert memory.recall(BLOG) is None
    assert memory.children(BLOG) is None


def test_what_happens_while_somebody_reads_makes_the_reading_worthless():
    memory = Memory[str]()
    look = memory.begin(BLOG)
    memory.forget(BLOG)

    memory.keep(BLOG, look, BODY, "children")

    assert memory.recall(BLOG) is None


def test_a_look_that_was_given_up_does_not_speak_for_the_next_one():
    memory = Memory[str]()
    given_up = memory.begin(BLOG)
    memory.begin(BLOG)

    memory.keep(BLOG, given_up, BODY, "children")

    assert memory.recall(BLOG) is None


def test_the_version_of_a_run_is_known_while_it_is_remembered():
    memory = Memory[str]()
    memory.keep(BLOG, memory.begin(BLOG), BODY, "children", listed=True)
    assert memory.version(BLOG) == "7"

    memory.forget(BLOG)
    assert memory.version(BLOG) == ""
