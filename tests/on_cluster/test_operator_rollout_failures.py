"""Rollouts that something stands in the way of, on a real API server with a real model-fetch: each names its cause, and
leaves the target as it was.

A model that is spoilt, missing, too large or crashes: tests/on_cluster/test_operator.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest

from devcluster.access import Access
from finetune_operator.rollout.target_shape import quantity
from tests.on_cluster.operator_stand import Json, Stand, rollout_to, stand_at_work

pytestmark = pytest.mark.on_cluster


@pytest.fixture(scope="module")
def stand(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand_at_work(cluster, tmp_path_factory) as stand:
        begin_what_takes_minutes(stand)
        yield stand


def begin_what_takes_minutes(stand: Stand) -> None:
    """Rollouts whose pods are given two minutes: they run beside the other tests, and the last test looks at them."""
    model = stand.put_model(b"a model for a full node")
    (node,) = json.loads(stand.kubectl("get", "nodes", "-ojson"))["items"]
    memory = quantity(node["status"]["allocatable"]["memory"])
    roomy, unpulled = stand.deployment("roomy"), stand.deployment("unpulled")
    (server,) = roomy["spec"]["template"]["spec"]["containers"]
    server["resources"] = {"requests": {"memory": str(memory * 6 // 10)}}
    unpulled["spec"]["template"]["spec"]["initContainers"][0]["imagePullPolicy"] = "Always"
    for target in (roomy, unpulled):
        stand.apply(target)
    stand.kubectl("rollout", "status", "deployment/roomy", "--timeout=60s")
    for name in ("roomy", "unpulled"):
        stand.apply(stand.run(f"to-{name}", manifest=model, rollout=rollout_to(name)))


def rolled_back(stand: Stand, run: str) -> Json:
    stand.phase(run, "RolledBack", 150)
    return stand.condition(run, "RolledOut")


def put_in(status: Json, reverts: int) -> bool:
    """Whether the values are in the target after so many reverts, as the operator has seen."""
    rollout = status.get("rollout", {})
    return rollout.get("reverts", 0) == reverts and bool(rollout.get("patchedGeneration"))


def test_a_file_that_may_be_a_program_and_a_key_that_is_refused_are_named_and_leave_nothing(
    stand: Stand,
) -> None:
    program = stand.put_model(b"weights, or a program", path="model.pkl")
    later = stand.put_model(b"weights that nobody may read")
    keys = {"accessKeyId": stand.cluster.s3_access_key, "secretAccessKey": stand.cluster.s3_secret_key}
    stand.apply(stand.secret("chat-s3", **keys))
    target = stand.deployment("guarded")
    (fetch,) = target["spec"]["template"]["spec"]["initContainers"]
    for entry in fetch["env"]:
        if "valueFrom" in entry:
            entry["valueFrom"]["secretKeyRef"]["name"] = "chat-s3"
    stand.apply(target)

    stand.apply(stand.run("program", manifest=program, rollout=rollout_to("guarded")))
    forbidden = rolled_back(stand, "program")
    stand.apply(stand.secret("chat-s3", **keys | {"secretAccessKey": "not-the-key"}))
    stand.apply(stand.run("refused", manifest=later, rollout=rollout_to("guarded")))
    denied = rolled_back(stand, "refused")

    assert (forbidden["reason"], denied["reason"]) == ("ForbiddenFile", "ModelAccessDenied")
    assert "model.pkl" in forbidden["message"]
    assert "not-the-key" not in json.dumps(stand.get("finetunerun", "refused"))
    assert "MODEL_ID" not in stand.env_of("guarded")
    stand.kubectl("delete", "deployment", "guarded")


def test_a_volume_without_room_is_named_with_what_is_needed_and_the_target_is_left_as_it_was(
    stand: Stand,
) -> None:
    model = stand.put_model(b"a model for a small volume")
    target = stand.deployment("cramped")
    target["spec"]["template"]["spec"]["volumes"] = [
        {"name": "models", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}
    ]
    stand.apply(target)

    stand.apply(stand.run("full", manifest=model, rollout=rollout_to("cramped")))
    full = rolled_back(stand, "full")

    assert full["reason"] == "CacheVolumeFull"
    assert "MiB" in full["message"]
    assert "MODEL_ID" not in stand.env_of("cramped")
    stand.kubectl("delete", "deployment", "cramped")


def test_a_quota_that_refuses_the_new_pods_is_quoted_and_the_pods_before_stay(stand: Stand) -> None:
    model = stand.put_model(b"beyond the quota")
    stand.apply(stand.deployment("counted"))
    stand.apply(stand.run("beyond", manifest=model, rollout=rollout_to("counted") | {"mode": "Manual"}))
    stand.phase("beyond", "AwaitingApproval", 120)
    stand.kubectl("create", "quota", "full", "--hard=pods=1")
    stand.kubectl(
        "patch", "finetunerun/beyond", "--type=merge", '--patch={"spec":{"rollout":{"approved":true}}}'
    )
    refused = rolled_back(stand, "beyond")

    assert refused["reason"] == "FailedCreate"
    assert "exceeded quota: full" in refused["message"]
    assert "MODEL_ID" not in stand.env_of("counted")
    stand.kubectl("rollout", "status", "deployment/counted", "--timeout=30s")
    stand.kubectl("delete", "quota/full", "deployment/counted")


def test_values_that_git_takes_out_are_put_in_once_more_and_then_left_to_git_with_the_cure(
    stand: Stand,
) -> None:
    model = stand.put_model(b"a model that Git does not know")
    target = stand.deployment("in-git")
    stand.apply(target, manager="argocd-controller")
    rollout = rollout_to("in-git") | {"observationSeconds": 300}
    stand.apply(stand.run("reverted", manifest=model, rollout=rollout))

    for reverts in range(2):
        stand.until("reverted", partial(put_in, reverts=reverts), 150)
        stand.kubectl("replace", "--field-manager=argocd-controller", "--filename=-", text=json.dumps(target))
    stand.until(
        "reverted",
        lambda _: stand.condition("reverted", "RolledOut").get("reason") == "RevertedByOtherManager",
    )

    told = stand.condition("reverted", "RolledOut")["message"]
    assert '"argocd-controller" changed deployment/in-git' in told
    assert "ignoreDifferences" in told
    assert "MODEL_ID" not in stand.env_of("in-git")
    assert stand.condition("reverted", "Stalled")["status"] == "True"
    stand.kubectl("delete", "deployment", "in-git")


def test_several_targets_get_the_model_one_after_the_other_and_the_first_that_fails_stops_the_row(
    stand: Stand,
) -> None:
    model = stand.put_model(b"a model for three")
    crashing = stand.deployment("second")
    (server,) = crashing["spec"]["template"]["spec"]["containers"]
    server["env"] = [
        {"name": "CRASHES_WITH", "value": f"sha256:{model}"},
        {"name": "CRASHES_AFTER", "value": "1"},
    ]
    for target in (stand.deployment("first"), crashing, stand.deployment("third")):
        stand.apply(target)
    rollout = rollout_to("first")
    rollout["target"]["deployment"]["others"] = ["second", "third"]
    lacking = rollout_to("first")
    lacking["target"]["deployment"]["others"] = ["second", "nowhere"]

    stand.apply(stand.run("unstarted", manifest=model, rollout=lacking))
    stand.apply(stand.run("in-a-row", manifest=model, rollout=rollout))
    stand.phase("in-a-row", "RolledBack", 200)

    told = stand.condition("in-a-row", "RolledOut")
    assert told["reason"] == "ContainerCrashed"
    assert "; already live and left so: first" in told["message"]
    assert stand.env_of("first")["MODEL_ID"] == f"sha256:{model}"
    assert "MODEL_ID" not in stand.env_of("second")
    assert "MODEL_ID" not in stand.env_of("third")
    assert '"nowhere" does not exist' in stand.condition("unstarted", "RolledOut")["message"]
    assert stand.status("unstarted")["attempts"] == []
    stand.kubectl("delete", "deployment", "first", "second", "third")


def test_pods_that_find_no_room_or_no_image_are_given_two_minutes_and_the_cause_is_named(
    stand: Stand,
) -> None:
    for name in ("roomy", "unpulled"):
        stand.until(f"to-{name}", lambda status: status.get("rollout", {}).get("reason", "") != "", 240)
    told = {name: stand.status(f"to-{name}")["rollout"] for name in ("roomy", "unpulled")}
    stand.phase("to-roomy", "RolledBack", 60)

    assert {name: found["reason"] for name, found in told.items()} == {
        "roomy": "Unschedulable",
        "unpulled": "ImagePullFailed",
    }
    assert "Insufficient memory" in told["roomy"]["message"]
    assert "maxSurge" in told["roomy"]["message"]
    assert "finetune-serving" in told["unpulled"]["message"]
    assert all("MODEL_ID" not in stand.env_of(name) for name in ("roomy", "unpulled"))
    stand.kubectl("delete", "deployment", "roomy", "unpulled")
