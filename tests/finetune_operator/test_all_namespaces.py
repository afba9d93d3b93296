"""One operator for every namespace of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api_group import ALL_NAMESPACES
from finetune_operator.errors import InvalidSettings
from finetune_operator.observed import RunKey
from finetune_operator.settings import Settings, read_settings
from tests.finetune_operator.small_queue import Keys, listed, watched


def watching(namespaces: str) -> Settings:
    environment = {
        "POD_NAMESPACE": "ops",
        "FINETUNE_TRAINER_IMAGE": "trainer:1",
        "FINETUNE_WATCH_NAMESPACES": namespaces,
    }
    return read_settings(environment, Path("/nowhere"))


def body(namespace: str, name: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name, "uid": f"{namespace}-{name}"}, "spec": {}}


def test_a_star_means_every_namespace() -> None:
    assert watching("*").watch_namespaces == (ALL_NAMESPACES,)


def test_a_star_beside_names_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="write \\* alone"):
        watching("team-a,*")


def test_a_list_of_everything_finds_what_vanished_anywhere() -> None:
    keys = Keys()
    runs = watched(keys)
    listed(runs, ALL_NAMESPACES, [body("a", "one"), body("b", "two")])

    listed(runs, ALL_NAMESPACES, [body("a", "one")])

    assert keys.forgotten == [RunKey("b", "two")]


def test_a_list_of_one_namespace_says_nothing_about_others() -> None:
    keys = Keys()
    runs = watched(keys)
    listed(runs, "a", [body("a", "one")])
    listed(runs, "b", [body("b", "two")])

    listed(runs, "a", [])

    assert keys.forgotten == [RunKey("a", "one")]
