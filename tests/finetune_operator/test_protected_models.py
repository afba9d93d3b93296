"""From what kubectl shows to the list of models that must stay in the store."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from finetune_contract.protected_models import ProtectedModels
from finetune_operator.protected_models import NotAList, main, protected_document
from tests.finetune_operator.samples import NOON

DIGEST = "a" * 64


def a_list(*items: dict[str, Any]) -> str:
    return json.dumps({"kind": "List", "items": list(items)})


def a_replica_set() -> dict[str, Any]:
    container = {"name": "model-server", "env": [{"name": "MODEL_ID", "value": f"sha256:{DIGEST}"}]}
    return {"kind": "ReplicaSet", "spec": {"template": {"spec": {"containers": [container]}}}}


def a_waiting_run() -> dict[str, Any]:
    status = {"phase": "AwaitingApproval", "runKey": "key", "artifact": {"manifestSha256": "b" * 64}}
    return {"kind": "FineTuneRun", "metadata": {"namespace": "demo", "name": "blog"}, "status": status}


def test_the_document_is_what_the_sweep_reads_and_says_when_it_was_made(capsys):
    text = a_list(a_replica_set(), a_waiting_run(), {"kind": "Service"})

    assert main(io.StringIO(text), lambda: NOON) == 0

    found = ProtectedModels.model_validate_json(capsys.readouterr().out)
    assert found == ProtectedModels(
        live=[DIGEST], candidates=["b" * 64], active_run_keys=["key"], made_at=NOON
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no list of kubectl"),
        ("[]", "no list of kubectl"),
        ('{"items": [{}]}', "no list of kubectl"),
        (a_list(), "could be missed"),
        (a_list(a_waiting_run()), "could be missed"),
    ],
)
def test_a_list_that_may_miss_a_served_model_is_refused(text, words):
    with pytest.raises(NotAList, match=words):
        protected_document(text, NOON)


def test_the_command_says_what_is_wrong(capsys):
    assert main(io.StringIO("{}")) == 2

    assert "ask with -o json" in capsys.readouterr().err
