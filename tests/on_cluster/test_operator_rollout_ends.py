"""Rollouts that end badly with a whole model: it is worse, it never answers, or it cannot be put back.

What stands in a rollout's way: test_operator_rollout_failures.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devcluster.access import Access
from tests.on_cluster.operator_stand import Stand, rollout_to, stand_at_work

pytestmark = pytest.mark.on_cluster

WORSE = 76
"""Seconds of training after which the stand-in's model has less recall."""


@pytest.fixture(scope="module")
def stand(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand_at_work(cluster, tmp_path_factory) as stand:
        yield stand


def test_a_model_that_is_clearly_worse_than_the_live_one_does_not_take_its_place(stand: Stand) -> None:
    good, worse = stand.put_model(b"the live model"), stand.put_model(b"a worse model")
    stand.apply(stand.deployment("champion"))
    gates = {"evaluation": {"gates": [{"metric": "answer_recall", "minimum": 0.2}]}}
    stand.apply(stand.run("good", manifest=good, rollout=rollout_to("champion"), **gates))
    stand.phase("good", "Succeeded", 150)
    generation = stand.get("deployment", "champion")["metadata"]["generation"]

    stand.apply(
        stand.run("worse", manifest=worse, train_seconds=WORSE, rollout=rollout_to("champion"), **gates)
    )
    stand.phase("worse", "NotPromoted", 150)

    told = stand.condition("worse", "RolledOut")
    assert told["reason"] == "BelowLiveModel"
    assert "answer_recall 0.4 is more than 0.15 (rollout.maxDrop) below the 0.9" in told["message"]
    assert 'live by run "good"' in told["message"]
    assert stand.get("deployment", "champion")["metadata"]["generation"] == generation
    stand.kubectl("delete", "deployment", "champion")


def test_a_model_whose_pods_never_become_ready_is_taken_back_at_the_deployments_own_deadline(
    stand: Stand,
) -> None:
    model = stand.put_model(b"a model that never answers")
    target = stand.target_with("patient", SILENT_WITH=f"sha256:{model}")
    target["spec"]["progressDeadlineSeconds"] = 20
    stand.apply(target)
    stand.kubectl("rollout", "status", "deployment/patient", "--timeout=60s")

    stand.apply(stand.run("silent", manifest=model, rollout=rollout_to("patient")))
    stand.phase("silent", "RolledBack", 150)

    assert stand.condition("silent", "RolledOut")["reason"] == "ProgressDeadlineExceeded"
    assert "MODEL_ID" not in stand.env_of("patient")
    stand.kubectl("delete", "deployment", "patient")


def test_a_model_that_somebody_else_has_claimed_cannot_be_put_back_and_the_commands_are_named(
    stand: Stand,
) -> None:
    good, broken = stand.put_model(b"the model before"), stand.put_model(b"a model that is claimed")
    target = stand.target_with("claimed", CRASHES_WITH=f"sha256:{broken}", CRASHES_AFTER="20")
    stand.apply(target)
    stand.apply(stand.run("before", manifest=good, rollout=rollout_to("claimed")))
    stand.phase("before", "Succeeded", 150)

    rollout = rollout_to("claimed") | {"observationSeconds": 60}
    stand.apply(stand.run("broken", manifest=broken, rollout=rollout))
    stand.until("broken", lambda status: status.get("rollout", {}).get("phase") == "Verifying", 120)
    env = [{"name": "MODEL_ID", "value": f"sha256:{broken}"}]
    claim = {"spec": {"containers": [{"name": "model-server", "env": env}]}}
    stand.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "claimed"},
            "spec": {"template": claim},
        },
        manager="somebody-else",
    )
    stand.until("broken", lambda status: status.get("rollout", {}).get("phase") == "RollbackFailed", 120)

    told = stand.condition("broken", "RolledOut")
    assert told["reason"] == "RollbackFailed"
    assert '"somebody-else"' in told["message"]
    assert f"MODEL_ID=sha256:{good}" in told["message"]
    assert stand.condition("broken", "Stalled")["status"] == "True"
    stand.kubectl("delete", "deployment", "claimed")
