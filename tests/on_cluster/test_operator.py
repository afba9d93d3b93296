"""The operator against a real API server: bad input, restarts, suspending, and a rollout that goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.access import Access
from tests.on_cluster.operator_stand import OPERATOR, Stand, rollout_to, stand_at_work

pytestmark = pytest.mark.on_cluster


@pytest.fixture(scope="module")
def stand(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand_at_work(cluster, tmp_path_factory) as stand:
        yield stand


@pytest.fixture(autouse=True)
def no_run_is_left(stand: Stand) -> Iterator[None]:
    yield
    stand.kubectl("delete", "finetuneruns", "--all", "--wait=true")


def jobs_of(stand: Stand, run: str) -> list[str]:
    selector = f"--selector=finetune-operator.io/run={run}"
    return stand.kubectl("get", "jobs", selector, "--output=jsonpath={.items[*].metadata.name}").split()


def test_a_run_goes_from_dataset_to_stored_model_and_leaves_no_mark_of_kopf(stand: Stand) -> None:
    stand.apply(stand.run("whole", train_seconds=3, manifest="ab" * 32))

    status = stand.phase("whole", "Succeeded", 120)

    body = stand.get("finetunerun", "whole")
    assert [attempt["result"] for attempt in status["attempts"]] == ["Succeeded"] * 4
    assert status["runKey"] == "d" * 64
    assert status["artifact"]["manifestSha256"] == "ab" * 32
    assert stand.condition("whole", "Ready")["status"] == "True"
    assert {found["observedGeneration"] for found in status["conditions"]} == {1}
    assert stand.kubectl("wait", "--for=condition=Ready", "finetunerun/whole", "--timeout=5s")
    assert "finalizers" not in body["metadata"]
    assert not any("kopf" in name for name in body["metadata"].get("annotations", {}))
    reasons = stand.kubectl("get", "events", "--output=jsonpath={.items[*].reason}").split()
    assert "Ready" in reasons


def test_a_missing_secret_is_named_with_its_field_and_the_run_goes_on_once_it_is_there(stand: Stand) -> None:
    run = stand.run("keyless")
    wordpress = run["spec"]["dataset"]["sources"][0]["wordpress"]
    wordpress["credentialsSecretRef"] = {"name": "forgotten"}
    stand.apply(run)

    stand.until(
        "keyless",
        lambda status: any(found["reason"] == "SecretNotFound" for found in status.get("conditions", [])),
    )
    stalled = stand.condition("keyless", "Stalled")
    stand.apply(stand.secret("forgotten", username="reader", password="secret"))
    stand.phase("keyless", "Succeeded", 120)

    assert stalled["status"] == "True"
    assert (
        'spec.dataset.sources[0].wordpress.credentialsSecretRef: Secret "forgotten" does not exist'
        in stalled["message"]
    )


def test_an_unknown_deployment_or_container_stops_the_run_before_any_job(stand: Stand) -> None:
    without_server = stand.deployment("headless")
    without_server["spec"]["template"]["spec"]["containers"][0]["name"] = "web"
    stand.apply(without_server)
    stand.apply(
        stand.run("lost", rollout=rollout_to("nowhere")),
        stand.run("headless", rollout=rollout_to("headless")),
    )

    for name, reason in (("lost", "TargetNotFound"), ("headless", "ContainerNotFound")):
        stand.until(name, lambda status: bool(status.get("conditions")))
        stalled = stand.condition(name, "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", reason)
        assert jobs_of(stand, name) == []
    assert "headless" in stand.condition("lost", "Stalled")["message"]
    assert '"model-server"' in stand.condition("headless", "Stalled")["message"]

    stand.apply(stand.deployment("nowhere"))
    stand.until("lost", lambda status: bool(status.get("attempts")))
    stand.kubectl("delete", "deployment", "nowhere", "headless")


def test_a_field_that_git_owns_is_found_before_any_job(stand: Stand) -> None:
    stand.apply(stand.deployment("owned", MODEL_URI="s3://from/git"), manager="argocd-controller")
    stand.apply(stand.run("fight", rollout=rollout_to("owned")))

    stand.until("fight", lambda status: bool(status.get("conditions")))

    stalled = stand.condition("fight", "Stalled")
    assert stalled["reason"] == "FieldConflict"
    assert '"argocd-controller"' in stalled["message"]
    assert "MODEL_URI" in stalled["message"]
    assert jobs_of(stand, "fight") == []
    assert stand.env_of("owned") == {"MODEL_URI": "s3://from/git"}
    stand.kubectl("delete", "deployment", "owned")


def test_a_field_that_git_owns_is_taken_by_a_run_with_force(stand: Stand) -> None:
    model = stand.put_model(b"by force")
    stand.apply(stand.deployment("taken", MODEL_URI="s3://from/git"), manager="argocd-controller")

    stand.apply(stand.run("forceful", manifest=model, rollout=rollout_to("taken") | {"force": True}))
    stand.phase("forceful", "Succeeded", 150)

    assert stand.env_of("taken")["MODEL_ID"] == f"sha256:{model}"
    assert stand.env_of("taken")["MODEL_URI"] != "s3://from/git"
    stand.kubectl("delete", "deployment", "taken")


def test_an_operator_killed_while_training_goes_on_with_the_same_job(stand: Stand) -> None:
    stand.apply(stand.run("orphan", train_seconds=25))
    stand.until(
        "orphan", lambda s: s.get("progress", {}).get("stage") == "train" and s["progress"]["step"] >= 2
    )

    stand.kill_operator()
    stand.start_operator()
    status = stand.phase("orphan", "Succeeded", 150)

    assert [(attempt["stage"], attempt["number"]) for attempt in status["attempts"]] == [
        ("dataset", 0),
        ("train", 0),
        ("package", 0),
        ("evaluate", 0),
    ]
    assert len(jobs_of(stand, "orphan")) == 4


def test_a_suspended_run_saves_a_checkpoint_and_goes_on_and_a_cancelled_one_ends(stand: Stand) -> None:
    stand.apply(stand.run("pause", train_seconds=60))
    stand.until(
        "pause", lambda s: s.get("progress", {}).get("stage") == "train" and s["progress"]["step"] >= 1
    )

    stand.kubectl("patch", "finetunerun", "pause", "--type=merge", '--patch={"spec":{"suspend":true}}')
    suspended = stand.phase("pause", "Suspended", 60)
    running = stand.kubectl(
        "get",
        "pods",
        "--selector=finetune-operator.io/stage=train,finetune-operator.io/run=pause",
        "--field-selector=status.phase!=Succeeded,status.phase!=Failed",
        "--output=name",
    ).split()
    stand.kubectl("patch", "finetunerun", "pause", "--type=merge", '--patch={"spec":{"suspend":false}}')
    stand.until(
        "pause", lambda s: s.get("progress", {}).get("step", 0) >= 1 and s["attempts"][-1]["number"] == 1
    )
    stand.kubectl("patch", "finetunerun", "pause", "--type=merge", '--patch={"spec":{"cancel":true}}')
    cancelled = stand.phase("pause", "Cancelled", 60)

    assert [attempt["result"] for attempt in suspended["attempts"]] == ["Succeeded", "Suspended"]
    assert running == []
    assert cancelled["attempts"][-1]["result"] == "Cancelled"
    assert stand.condition("pause", "Stalled")["status"] == "True"


def test_a_killed_training_pod_costs_a_preemption_and_nothing_else(stand: Stand) -> None:
    stand.apply(stand.run("evicted", train_seconds=20))
    stand.until(
        "evicted", lambda s: s.get("progress", {}).get("stage") == "train" and s["progress"]["step"] >= 1
    )

    stand.kubectl("delete", "pod", "--selector=finetune-operator.io/stage=train", "--wait=false")
    status = stand.phase("evicted", "Succeeded", 150)

    train = [attempt for attempt in status["attempts"] if attempt["stage"] == "train"]
    assert [attempt["result"] for attempt in train] == ["Preempted", "Succeeded"]
    assert train[0]["exitCode"] == 32
    assert train[0]["message"] == "checkpoint saved"


def test_a_good_model_goes_live_and_a_broken_one_is_taken_back(
    stand: Stand, capsys: pytest.CaptureFixture[str]
) -> None:
    good, broken = stand.put_model(b"a good model"), stand.put_model(b"a model that was spoilt", spoil=True)
    stand.apply(stand.deployment("chat"))

    stand.apply(stand.run("good", manifest=good, rollout=rollout_to("chat")))
    stand.phase("good", "Succeeded", 150)
    live = stand.env_of("chat")
    stand.apply(stand.run("broken", manifest=broken, rollout=rollout_to("chat")))
    status = stand.phase("broken", "RolledBack", 150)

    assert live["MODEL_ID"] == f"sha256:{good}"
    assert stand.env_of("chat") == live
    assert "no Service selects the pods of deployment/chat" in stand.condition("good", "RolledOut")["message"]
    rolled_out = stand.condition("broken", "RolledOut")
    assert (rolled_out["status"], rolled_out["reason"]) == ("False", "ModelIntegrity")
    assert "model.gguf" in rolled_out["message"]
    assert f"sha256:{good} is back" in rolled_out["message"]
    assert stand.condition("broken", "Stalled")["status"] == "True"
    assert status["rollout"]["previous"]["modelId"] == f"sha256:{good}"
    stand.kubectl("rollout", "status", "deployment/chat", "--timeout=30s")
    stand.kubectl("delete", "deployment", "chat")


def test_a_model_that_serves_well_at_first_and_then_crashes_is_taken_back(stand: Stand) -> None:
    """The Deployment reports success meanwhile: all its pods were ready."""
    good, fragile = stand.put_model(b"one that lasts"), stand.put_model(b"one that does not last")
    target = stand.deployment("watched")
    (server,) = target["spec"]["template"]["spec"]["containers"]
    server["env"] = [
        {"name": "CRASHES_WITH", "value": f"sha256:{fragile}"},
        {"name": "CRASHES_AFTER", "value": "15"},
    ]
    stand.apply(target)
    stand.apply(stand.run("lasting", manifest=good, rollout=rollout_to("watched")))
    stand.phase("lasting", "Succeeded", 150)

    rollout = rollout_to("watched") | {"observationSeconds": 60}
    stand.apply(stand.run("fragile", manifest=fragile, rollout=rollout))
    stand.until("fragile", lambda status: status.get("rollout", {}).get("phase") == "Verifying")
    stand.kubectl("rollout", "status", "deployment/watched", "--timeout=5s")
    stand.phase("fragile", "RolledBack", 120)

    rolled_out = stand.condition("fragile", "RolledOut")
    assert (rolled_out["status"], rolled_out["reason"]) == ("False", "ContainerCrashed")
    assert "exit code 7" in rolled_out["message"]
    assert stand.env_of("watched")["MODEL_ID"] == f"sha256:{good}"
    stand.kubectl("delete", "deployment", "watched")


def test_a_model_that_is_not_there_is_named_and_the_one_before_stays(stand: Stand) -> None:
    good = stand.put_model(b"one that is there")
    stand.apply(stand.deployment("lost"))
    stand.apply(stand.run("there", manifest=good, rollout=rollout_to("lost")))
    stand.phase("there", "Succeeded", 150)

    stand.apply(stand.run("not-there", manifest="5" * 64, rollout=rollout_to("lost")))
    stand.phase("not-there", "RolledBack", 150)

    rolled_out = stand.condition("not-there", "RolledOut")
    assert rolled_out["reason"] == "ModelNotFound"
    assert "manifest.json" in rolled_out["message"]
    assert stand.env_of("lost")["MODEL_ID"] == f"sha256:{good}"
    stand.kubectl("delete", "deployment", "lost")


def test_a_model_that_needs_more_memory_than_it_may_is_taken_back(stand: Stand) -> None:
    good, large = stand.put_model(b"one that fits"), stand.put_model(b"one that does not fit")
    target = stand.deployment("small")
    (server,) = target["spec"]["template"]["spec"]["containers"]
    server["env"] = [{"name": "EATS_MEMORY_WITH", "value": f"sha256:{large}"}]
    server["resources"] = {"limits": {"memory": "192Mi"}}
    stand.apply(target)
    stand.apply(stand.run("fits", manifest=good, rollout=rollout_to("small")))
    stand.phase("fits", "Succeeded", 150)

    stand.apply(stand.run("too-large", manifest=large, rollout=rollout_to("small")))
    stand.phase("too-large", "RolledBack", 150)

    assert stand.condition("too-large", "RolledOut")["reason"] == "ModelTooLarge"
    assert stand.env_of("small")["MODEL_ID"] == f"sha256:{good}"
    stand.kubectl("delete", "deployment", "small")


def test_a_target_that_is_paused_is_waited_for_and_one_that_is_scaled_meanwhile_keeps_its_scale(
    stand: Stand,
) -> None:
    """An autoscaler writes the scale as `kubectl scale` does."""
    model = stand.put_model(b"for a target that others work on")
    stand.apply(stand.deployment("busy"))
    stand.kubectl("rollout", "pause", "deployment/busy")
    stand.apply(stand.run("patient", manifest=model, rollout=rollout_to("busy")))
    stand.until(
        "patient", lambda _: stand.condition("patient", "RolledOut").get("reason") == "DeploymentPaused", 120
    )

    stand.kubectl("rollout", "resume", "deployment/busy")
    stand.until("patient", lambda status: "patchedAt" in status.get("rollout", {}))
    stand.kubectl("scale", "deployment/busy", "--replicas=2")
    stand.phase("patient", "Succeeded", 150)

    busy = stand.get("deployment", "busy")
    assert (busy["spec"]["replicas"], busy["status"]["updatedReplicas"]) == (2, 2)
    assert stand.env_of("busy")["MODEL_ID"] == f"sha256:{model}"
    stand.kubectl("delete", "deployment", "busy")


def test_a_newer_run_waits_for_the_rollout_of_an_older_one_and_then_goes_live(stand: Stand) -> None:
    older, newer = stand.put_model(b"older"), stand.put_model(b"newer")
    stand.apply(stand.deployment("shared"))
    stand.apply(stand.run("older", manifest=older, rollout=rollout_to("shared")))
    stand.until("older", lambda status: "patchedAt" in status.get("rollout", {}))
    stand.apply(stand.run("newer", manifest=newer, rollout=rollout_to("shared")))

    rollouts = {name: stand.phase(name, "Succeeded", 200)["rollout"] for name in ("older", "newer")}

    assert not rollouts["older"]["previous"].get("modelId")
    assert rollouts["newer"]["previous"]["modelId"] == f"sha256:{older}"
    assert stand.env_of("shared")["MODEL_ID"] == f"sha256:{newer}"
    record = stand.get("configmap", "shared-model")["data"]
    assert [entry["run"] for entry in json.loads(record["HISTORY"])] == ["newer", "older"]
    stand.kubectl("delete", "deployment", "shared")


def test_an_older_run_does_not_replace_the_model_of_a_newer_one(stand: Stand) -> None:
    late, newest = stand.put_model(b"late"), stand.put_model(b"newest")
    stand.apply(stand.deployment("contested"))
    stand.apply(stand.run("late", suspend=True, manifest=late, rollout=rollout_to("contested")))
    stand.phase("late", "Suspended")
    stand.apply(stand.run("newest", manifest=newest, rollout=rollout_to("contested")))
    stand.phase("newest", "Succeeded", 200)

    stand.kubectl("patch", "finetunerun", "late", "--type=merge", '--patch={"spec":{"suspend":false}}')
    status = stand.until("late", lambda status: bool(status.get("completionTime")), 200)

    assert status["rollout"]["phase"] == "Superseded"
    assert '"newest"' in status["rollout"]["message"]
    assert stand.env_of("contested")["MODEL_ID"] == f"sha256:{newest}"
    stand.kubectl("delete", "deployment", "contested")


def test_a_second_replica_waits_and_takes_over_at_once_when_the_first_ends_well(stand: Stand) -> None:
    stand.start_operator("second")
    stand.apply(stand.run("handed-on", train_seconds=15))
    stand.until("handed-on", lambda s: s.get("progress", {}).get("stage") == "train")
    before = stand.holder

    status = stand.stop_operator()
    stand.phase("handed-on", "Succeeded", 120)

    assert before == OPERATOR
    assert status == 0
    assert stand.holder == "second"
    assert len(jobs_of(stand, "handed-on")) == 4
    assert stand.stop_operator("second") == 0
    stand.start_operator()


def test_a_first_model_that_is_broken_leaves_the_target_as_it_was(stand: Stand) -> None:
    broken = stand.put_model(b"never any good", spoil=True)
    stand.apply(stand.deployment("fresh"))
    stand.kubectl("rollout", "status", "deployment/fresh", "--timeout=60s")

    stand.apply(stand.run("first", manifest=broken, rollout=rollout_to("fresh")))
    stand.phase("first", "RolledBack", 150)

    assert stand.env_of("fresh") == {}
    assert stand.condition("first", "RolledOut")["reason"] == "ModelIntegrity"
    stand.kubectl("delete", "deployment", "fresh")


def test_a_deleted_run_takes_its_jobs_and_its_run_file_with_it(stand: Stand) -> None:
    stand.apply(stand.run("gone", train_seconds=30))
    stand.until("gone", lambda s: s.get("progress", {}).get("stage") == "train")

    stand.kubectl("delete", "finetunerun", "gone", "--cascade=foreground", "--wait=true", "--timeout=60s")

    assert jobs_of(stand, "gone") == []
    selector = "--selector=finetune-operator.io/run=gone"
    assert stand.kubectl("get", "configmaps", selector, "--output=name") == ""


def test_the_log_tells_no_secret(stand: Stand) -> None:
    log = Path(stand.log).read_text()

    assert stand.cluster.s3_secret_key not in log
    assert "phase=" in log
