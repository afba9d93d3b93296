"""Models that every pod serves and readers are not served well with: the target's Service is asked as they ask it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from devcluster.access import Access
from devcluster.paths import Instance
from tests.on_cluster.operator_stand import Json, Stand, load_trainer, rollout_to, standing

pytestmark = pytest.mark.on_cluster


@pytest.fixture(scope="module")
def stand(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    instance = Instance(cluster.kubeconfig.parent.name)
    load_trainer(instance, tmp_path_factory.mktemp("trainer"))
    with standing(cluster, instance, tmp_path_factory.mktemp("operator")) as stand:
        stand.start_operator()
        yield stand


def target_with(stand: Stand, name: str, **environment: str) -> Json:
    deployment = stand.deployment(name)
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    server["env"] = [{"name": key, "value": value} for key, value in environment.items()]
    return deployment


def test_a_model_that_readers_are_not_served_well_with_is_put_back_and_stays_away_until_a_person_lifts_that(
    stand: Stand,
) -> None:
    """Two targets: one whose model talks nonsense to readers, one whose model loses requests while it is watched."""
    nonsense, shaky = stand.put_model(b"a model of nonsense"), stand.put_model(b"a model that loses requests")
    stand.apply(
        target_with(stand, "mill", NONSENSE_WITH=f"sha256:{nonsense}"),
        target_with(stand, "store", STUMBLES_WITH=f"sha256:{shaky}"),
        stand.service("mill"),
        stand.service("store"),
    )
    lasting = rollout_to("store") | {"observationSeconds": 60}
    stand.apply(
        stand.run("nonsense", manifest=nonsense, rollout=rollout_to("mill")),
        stand.run("shaky", manifest=shaky, rollout=lasting),
    )
    stand.phase("nonsense", "RolledBack", 150)
    stand.apply(stand.run("again", manifest=nonsense, rollout=rollout_to("mill")))
    stand.phase("shaky", "RolledBack", 120)
    stand.until("again", lambda _: stand.condition("again", "RolledOut").get("reason") == "Quarantined", 90)

    told = {run: stand.condition(run, "RolledOut") for run in ("nonsense", "shaky", "again")}
    assert {run: found["reason"] for run, found in told.items()} == {
        "nonsense": "WrongAnswers",
        "shaky": "ServiceErrors",
        "again": "Quarantined",
    }
    assert "0 of 1 golden questions answered right, 1 are needed" in told["nonsense"]["message"]
    assert "“What does the wheel do?” gave “<unused>”" in told["nonsense"]["message"]
    assert 'Service "store" failed' in told["shaky"]["message"]
    assert "gave status 502" in told["shaky"]["message"]
    assert 'run "nonsense" ended WrongAnswers with it' in told["again"]["message"]
    assert all("MODEL_ID" not in stand.env_of(target) for target in ("mill", "store"))
    assert stand.condition("again", "Stalled")["status"] == "True"

    lifting = stand.status("nonsense")["rollout"]["quarantine"].split("was run: ")[1]
    stand.cluster.kubectl(*shlex.split(lifting)[1:])
    stand.kubectl("set", "env", "deployment/mill", "NONSENSE_WITH-")
    status = stand.phase("again", "Succeeded", 120)

    assert stand.env_of("mill")["MODEL_ID"] == f"sha256:{nonsense}"
    assert 'Service "mill" answered' in status["rollout"]["service"]
    assert "1 of 1 golden questions right" in stand.condition("again", "RolledOut")["message"]
    stand.kubectl("delete", "deployment/mill", "deployment/store", "service/mill", "service/store")
