"""The list of models that the store's sweep must leave alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_operator.rollout.protection import protected_models


def a_run(letter: str, phase: str, rollout: str = "", done: str = "") -> dict[str, Any]:
    status: dict[str, Any] = {
        "phase": phase,
        "runKey": f"key-{letter}",
        "artifact": {"uri": "s3://x", "manifestSha256": letter * 64},
        "completionTime": done,
    }
    if rollout:
        status["rollout"] = {"phase": rollout, "target": "deployment/chat"}
    return {"metadata": {"namespace": "demo", "name": letter, "creationTimestamp": "2026"}, "status": status}


def a_template(letter: str, variable: str = "MODEL_ID", prefix: str = "sha256:") -> dict[str, Any]:
    env = [{"name": variable, "value": f"{prefix}{letter * 64}"}, {"name": "OTHER", "value": "f" * 64}]
    return {"spec": {"template": {"spec": {"containers": [{"name": "model-server", "env": env}]}}}}


def test_the_models_of_a_target_are_listed_newest_first_and_once():
    runs = [
        a_run("a", "Succeeded", "Succeeded", "2026-01-01T00:00:00Z"),
        a_run("b", "Succeeded", "Succeeded", "2026-01-02T00:00:00Z"),
        a_run("a", "Succeeded", "Succeeded", "2026-01-03T00:00:00Z"),
        a_run("c", "RolledBack", "RolledBack", "2026-01-04T00:00:00Z"),
        a_run("d", "Succeeded", "Superseded", "2026-01-05T00:00:00Z"),
    ]

    found = protected_models(runs, [])

    assert found.history == {"demo/deployment/chat": ["a" * 64, "b" * 64]}
    assert found.candidates == found.live == found.active_run_keys == []


def test_what_was_live_stays_listed_when_its_run_was_deleted():
    live = a_run("c", "Succeeded", "Succeeded", "2026-01-04T00:00:00Z")
    entries = [
        {"MODEL_ID": f"sha256:{letter * 64}", "MODEL_MANIFEST_SHA256": letter * 64} for letter in "cba"
    ]
    record = {
        "metadata": {"namespace": "demo", "name": "chat-model"},
        "data": {"deployment": "chat", "HISTORY": json.dumps(entries)},
    }

    found = protected_models([live], [], [record])

    assert found.history == {"demo/deployment/chat": ["c" * 64, "b" * 64, "a" * 64]}


def test_a_run_that_has_not_ended_protects_its_folder_and_its_model():
    found = protected_models([a_run("e", "AwaitingApproval"), a_run("f", "NotPromoted")], [])

    assert found.candidates == ["e" * 64]
    assert found.active_run_keys == ["key-e"]


@pytest.mark.parametrize(
    ("phase", "mode", "kept"),
    [
        ("Succeeded", "None", True),
        ("NotPromoted", "None", False),
        ("Failed", "None", False),
        ("Succeeded", "Publish", False),  # the record of its target names it
        ("Succeeded", "Automatic", False),
    ],
)
def test_a_model_that_is_only_stored_stays_while_its_run_exists(phase, mode, kept):
    stored = a_run("a", phase, "Superseded" if mode == "Automatic" else "")
    stored["spec"] = {"rollout": {"mode": mode}}

    assert protected_models([stored], []).candidates == (["a" * 64] if kept else [])


def test_every_template_that_a_pod_may_be_made_of_protects_its_model():
    templates = [a_template("b"), a_template("a", "MODEL_MANIFEST_SHA256", ""), a_template("b"), {"spec": {}}]

    assert protected_models([], templates).live == ["a" * 64, "b" * 64]
    assert protected_models([], [a_template("x")]).live == []


def test_a_record_of_a_model_that_was_put_in_by_hand_without_a_digest_does_not_end_the_list():
    by_hand = {"MODEL_ID": "base", "MODEL_URI": "file:///base", "MODEL_MANIFEST_SHA256": ""}
    ours = {"MODEL_ID": f"sha256:{'a' * 64}", "MODEL_MANIFEST_SHA256": "a" * 64}
    record = {
        "metadata": {"namespace": "demo", "name": "chat-model"},
        "data": {"deployment": "chat", "HISTORY": json.dumps([ours, by_hand])},
    }

    assert protected_models([], [], [record]).history == {"demo/deployment/chat": ["a" * 64]}
