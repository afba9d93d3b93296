"""Models that are tried in a Job beside their target, on a real API server with a real model-fetch."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from devcluster.access import Access
from finetune_contract.artifacts import ChatMessage, GoldenQuestion
from tests.on_cluster.operator_stand import Json, Stand, rollout_to, stand_at_work

pytestmark = pytest.mark.on_cluster

GOLDEN = (
    GoldenQuestion(
        id="wheel",
        question="What does the wheel do?",
        prompt=[ChatMessage(role="user", content="What does the wheel do?")],
        must_contain=["turns"],
        answer="It turns.",
    ),
)


@pytest.fixture(scope="module")
def stand(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand_at_work(cluster, tmp_path_factory) as stand:
        yield stand


def smoke_jobs(stand: Stand, run: str) -> list[Json]:
    listed = stand.kubectl(
        "get",
        "jobs",
        f"--selector=finetune-operator.io/run={run},finetune-operator.io/stage=smoke-test",
        "-ojson",
    )
    found: list[Json] = json.loads(listed)["items"]
    return found


def test_a_model_that_answers_as_in_its_evaluation_goes_live(stand: Stand) -> None:
    model = stand.put_model(b"a model that turns", golden=GOLDEN)
    stand.apply(stand.target_with("mill", SAYS="It turns [1]."))
    stand.apply(stand.run("turning", manifest=model, rollout=rollout_to("mill", questions=5)))

    status = stand.phase("turning", "Succeeded", 150)

    assert status["rollout"]["smokeTest"] == "1 of 1 golden questions answered right"
    assert stand.env_of("mill")["MODEL_ID"] == f"sha256:{model}"
    [job] = smoke_jobs(stand, "turning")
    # It may take seconds longer than the run, for its model server ends first.
    stand.kubectl("wait", "--for=condition=Complete", f"job/{job['metadata']['name']}", "--timeout=60s")
    assert [job["status"]["succeeded"] for job in smoke_jobs(stand, "turning")] == [1]
    stand.kubectl("delete", "deployment", "mill")


def test_a_model_that_talks_nonsense_or_is_spoilt_never_meets_a_reader_and_is_named(stand: Stand) -> None:
    nonsense = stand.put_model(b"a model of nonsense", golden=GOLDEN)
    spoilt = stand.put_model(b"a model that is spoilt", spoil=True, golden=GOLDEN)
    stand.apply(stand.target_with("quiet", SAYS="<unused> <unused>"))
    stand.kubectl("rollout", "status", "deployment/quiet", "--timeout=60s")
    before = stand.get("deployment", "quiet")["metadata"]["generation"]

    stand.apply(stand.run("nonsense", manifest=nonsense, rollout=rollout_to("quiet", questions=5)))
    stand.apply(stand.run("spoilt", manifest=spoilt, rollout=rollout_to("quiet", questions=5)))
    for run in ("nonsense", "spoilt"):
        stand.phase(run, "NotPromoted", 150)
    told = {run: stand.condition(run, "RolledOut") for run in ("nonsense", "spoilt")}

    assert {run: found["reason"] for run, found in told.items()} == {
        "nonsense": "SmokeTestFailed",
        "spoilt": "ModelIntegrity",
    }
    assert "“What does the wheel do?” gave “<unused> <unused>”" in told["nonsense"]["message"]
    assert stand.get("deployment", "quiet")["metadata"]["generation"] == before
    stand.kubectl("delete", "deployment", "quiet")


def test_a_job_that_cannot_start_says_so_and_the_model_goes_live_once_it_is_no_more_asked_for(
    stand: Stand,
) -> None:
    model = stand.put_model(b"a model without a node", golden=GOLDEN)
    stand.apply(stand.target_with("crowded", SAYS="It turns."))
    stand.apply(
        stand.run("waiting", manifest=model, rollout=rollout_to("crowded", questions=5) | {"mode": "Manual"})
    )
    stand.phase("waiting", "AwaitingApproval", 120)
    stand.kubectl("create", "quota", "full", "--hard=pods=1")
    stand.kubectl(
        "patch", "finetunerun/waiting", "--type=merge", '--patch={"spec":{"rollout":{"approved":true}}}'
    )

    stand.until(
        "waiting",
        lambda _: stand.condition("waiting", "RolledOut").get("reason") == "SmokeTestInconclusive",
        150,
    )
    told = stand.condition("waiting", "RolledOut")
    stand.kubectl("delete", "quota/full")
    stand.kubectl(
        "patch",
        "finetunerun/waiting",
        "--type=merge",
        '--patch={"spec":{"rollout":{"smokeTest":{"questions":0}}}}',
    )
    stand.phase("waiting", "Succeeded", 120)

    assert told["status"] == "Unknown"
    assert "has made no pod" in told["message"]
    assert stand.env_of("crowded")["MODEL_ID"] == f"sha256:{model}"
    assert not [job for job in smoke_jobs(stand, "waiting") if job["status"].get("active")]
    stand.kubectl("delete", "deployment", "crowded")
