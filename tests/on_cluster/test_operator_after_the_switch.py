"""After the switch: what readers meet through the target's Service decides, what was put back stays away, and targets
that are made anew get their model back."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from devcluster.access import Access
from tests.on_cluster.operator_stand import Stand, rollout_to, stand_at_work

pytestmark = pytest.mark.on_cluster


@pytest.fixture(scope="module")
def stand(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand_at_work(cluster, tmp_path_factory) as stand:
        begin_a_row(stand)
        yield stand


ROW = ("east", "west")


def begin_a_row(stand: Stand) -> None:
    """Beside the first test; the last one looks at it."""
    model = stand.put_model(b"for two in a row")
    stand.apply(*(stand.deployment(name) for name in ROW))
    rollout = rollout_to(ROW[0])
    rollout["target"]["deployment"]["others"] = list(ROW[1:])
    stand.apply(stand.run("row", manifest=model, rollout=rollout))


def test_a_model_that_readers_are_not_served_well_with_is_put_back_and_stays_away_until_a_person_lifts_that(
    stand: Stand,
) -> None:
    """Two targets: one whose model talks nonsense to readers, one whose model loses requests while it is watched."""
    nonsense, shaky = stand.put_model(b"a model of nonsense"), stand.put_model(b"a model that loses requests")
    stand.apply(
        stand.target_with("mill", NONSENSE_WITH=f"sha256:{nonsense}"),
        stand.target_with("store", STUMBLES_WITH=f"sha256:{shaky}"),
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


def test_every_target_of_a_row_that_is_made_anew_gets_its_model_back(stand: Stand) -> None:
    before = stand.phase("row", "Succeeded", 90)["rollout"]["doneUids"]
    stand.kubectl("delete", "deployment", *ROW)
    stand.apply(*(stand.deployment(name) for name in ROW))

    status = stand.until(
        "row", lambda status: not set(status["rollout"]["doneUids"].values()) & set(before.values())
    )

    model = status["rollout"]["current"]["modelId"]
    assert sorted(before) == sorted(status["rollout"]["doneUids"]) == list(ROW)
    assert [stand.env_of(name)["MODEL_ID"] for name in ROW] == [model, model]
    stand.kubectl("delete", "deployment", *ROW)
