"""A model is tried in a Job beside the target; only one that answers there meets readers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.run_status import EvaluationStatus, Phase, Reason, RolloutPhase
from finetune_operator.actions import CreateSmokeTest, Decision, DeleteJob, PatchTarget
from finetune_operator.lifecycle import decide
from finetune_operator.observed import ContainerFacts, DeploymentFacts, PodFacts, Run, SmokeJob, Termination
from finetune_operator.rollout.smoke_test import RETRY_SECONDS
from tests.finetune_operator.samples import (
    ALL_STAGES,
    MANIFEST,
    NEW_MODEL,
    NOON,
    OLD_MODEL,
    URI,
    a_deployment,
    a_rollout,
    a_run,
    a_status,
    after,
    at,
    condition,
    later,
    seen,
)

REPORT = "s3://models/finetune/runs/k1/evaluation/report.html"
POD_SPEC: dict[str, Any] = {
    "serviceAccountName": "site",
    "nodeSelector": {"disk": "fast"},
    "hostNetwork": True,
    "affinity": {"podAntiAffinity": {"required": "..."}, "nodeAffinity": {"wants": "a node"}},
    "topologySpreadConstraints": [{"maxSkew": 1}],
    "initContainers": [
        {"name": "migrate", "image": "site:1"},
        {
            "name": "model-fetch",
            "image": "serving:1",
            "command": ["finetune-model-fetch"],
            "env": [
                {"name": "MODEL_URI", "value": "s3://old/"},
                {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k"}}},
            ],
            "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        },
    ],
    "containers": [
        {
            "name": "model-server",
            "image": "serving:1",
            "args": ["--flag"],
            "env": [{"name": "MODEL_SERVER_PORT", "value": "9000"}],
            "ports": [{"containerPort": 9000, "hostPort": 9000}],
            "resources": {"limits": {"memory": "1Gi"}},
            "readinessProbe": {"httpGet": {"port": 9000}},
            "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        },
        {"name": "web", "image": "site:1", "volumeMounts": [{"name": "media", "mountPath": "/media"}]},
    ],
    "volumes": [
        {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "media", "emptyDir": {}},
    ],
}


def target(model: Any = OLD_MODEL, **changes: Any) -> DeploymentFacts:
    return replace(a_deployment(model), pod_spec=POD_SPEC, **changes)


def a_run_with_test(**smoke: object) -> Run:
    """A run that has a model, and asks for a smoke test."""
    status = a_status(ALL_STAGES)
    evaluation = EvaluationStatus(passed=True, gate="passed", report_uri=REPORT)
    return a_run(
        status.model_copy(update={"evaluation": evaluation}),
        rollout=a_rollout(smokeTest={"questions": 5} | smoke),
    )


def begun() -> tuple[Run, CreateSmokeTest]:
    """The run as its Job is made."""
    run = a_run_with_test()
    for _ in range(2):
        run = after(run, decide(run, seen(target=target()), NOON))
    (action,) = decide(run, seen(target=target()), NOON).actions
    assert isinstance(action, CreateSmokeTest)
    return run, action


def a_smoke_job(name: str, *containers: ContainerFacts, **changes: Any) -> SmokeJob:
    pod = PodFacts("blog-smoke-1-x", created_at=at(0), node="one", phase="Running", containers=containers)
    return SmokeJob(name, **({"created_at": at(0), "pods": (pod,)} | changes))


def asked(code: int, message: str = "") -> ContainerFacts:
    return ContainerFacts(
        "smoke-test", terminated=Termination(code, "Error" if code else "Completed", message)
    )


def decided(job: SmokeJob, run: Run, seconds: float = 5) -> Decision:
    return decide(run, replace(seen(target=target()), smoke_jobs=(job,)), later(seconds))


def phase_of(decision: Decision) -> RolloutPhase | None:
    return decision.status.rollout.phase if decision.status.rollout else None


def test_the_name_of_the_job_is_in_the_status_before_the_job_is_made():
    run = a_run_with_test()
    recorded = decide(run, seen(target=target()), NOON)
    testing = decide(after(run, recorded), seen(target=target()), NOON)

    assert phase_of(testing) is RolloutPhase.SMOKE_TESTING
    assert testing.actions == ()
    assert testing.status.rollout is not None
    assert testing.status.rollout.smoke_attempts == 1


def test_the_job_runs_the_targets_own_model_fetch_and_model_server_and_nothing_else_of_it():
    _, action = begun()
    template: Any = action.manifest["spec"]
    pod = template["template"]["spec"]
    fetch, server = pod["initContainers"]

    assert [fetch["name"], server["name"], pod["containers"][0]["name"]] == [
        "model-fetch",
        "model-server",
        "smoke-test",
    ]
    assert server["restartPolicy"] == "Always"
    assert (server["image"], server["args"], server["resources"]) == (
        "serving:1",
        ["--flag"],
        {"limits": {"memory": "1Gi"}},
    )
    assert "readinessProbe" not in server
    assert server["ports"] == [{"containerPort": 9000}]
    assert pod["serviceAccountName"] == "site"
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert pod["affinity"] == {"nodeAffinity": {"wants": "a node"}}
    assert not {"hostNetwork", "topologySpreadConstraints"} & set(pod)


def test_the_job_is_not_selected_by_the_targets_service_and_does_not_hold_its_claim():
    _, action = begun()
    spec: Any = action.manifest["spec"]

    assert all(label.startswith("finetune-operator.io/") for label in spec["template"]["metadata"]["labels"])
    assert spec["template"]["spec"]["volumes"] == [{"name": "models", "emptyDir": {}}]


def test_the_containers_of_the_job_pin_the_new_model_and_ask_where_it_is_served():
    _, action = begun()
    spec: Any = action.manifest["spec"]
    pod = spec["template"]["spec"]
    fetch, server, ask = (
        {entry["name"]: entry.get("value") for entry in container["env"]}
        for container in (*pod["initContainers"], *pod["containers"])
    )

    assert (fetch["MODEL_URI"], fetch["MODEL_MANIFEST_SHA256"]) == (URI, MANIFEST)
    assert server["MODEL_ID"] == ask["MODEL_ID"] == f"sha256:{MANIFEST}"
    assert ask["MODEL_SERVER_PORT"] == "9000"
    assert ask["GOLDEN_QUESTIONS"] == "s3://models/finetune/runs/k1/evaluation"
    assert ask["SMOKE_TEST_QUESTIONS"] == "5"
    assert "AWS_SECRET_ACCESS_KEY" in ask
    assert pod["containers"][0]["command"] == ["finetune-smoke-test"]


def test_a_model_that_answers_is_put_into_the_target():
    run, action = begun()
    passed = decided(a_smoke_job(action.name, asked(0, "5 of 5 golden questions answered right")), run)
    patched = decide(after(run, passed), seen(target=target()), later(6))

    assert passed.actions == ()
    assert passed.status.rollout is not None
    assert passed.status.rollout.smoke_test == "5 of 5 golden questions answered right"
    assert phase_of(patched) is RolloutPhase.PROGRESSING
    assert isinstance(patched.actions[0], PatchTarget)


def test_a_target_that_serves_the_model_already_is_not_tested():
    run = a_run_with_test()
    recorded = decide(run, seen(target=target(NEW_MODEL)), NOON)

    again = decide(after(run, recorded), seen(target=target(NEW_MODEL)), NOON)

    assert phase_of(again) is RolloutPhase.PROGRESSING


@pytest.mark.parametrize(
    ("containers", "reason", "words"),
    [
        ([asked(30, "1 of 5 golden questions answered right")], Reason.SMOKE_TEST_FAILED, "1 of 5"),
        ([asked(31, "the model server serves x, not y")], Reason.SMOKE_TEST_FAILED, "serves x"),
        (
            [
                ContainerFacts(
                    "model-fetch", init=True, terminated=Termination(12, "Error", "expected sha256")
                )
            ],
            Reason.MODEL_INTEGRITY,
            "expected sha256",
        ),
        (
            [
                ContainerFacts(
                    "model-server", init=True, restarts=1, last_terminated=Termination(137, "OOMKilled")
                )
            ],
            Reason.MODEL_TOO_LARGE,
            "memory",
        ),
    ],
)
def test_a_model_that_fails_is_not_put_in_and_the_run_says_why(
    containers: list[ContainerFacts], reason: Reason, words: str
):
    run, action = begun()
    job = a_smoke_job(action.name, *containers)

    failed = decided(job, run)

    assert failed.status.phase is Phase.NOT_PROMOTED
    assert condition(failed, "RolledOut").reason == reason
    assert words in condition(failed, "RolledOut").message
    assert "nothing was changed" in condition(failed, "RolledOut").message
    assert (DeleteJob(action.name) in failed.actions) == (job.ended is None)
    assert not [action for action in failed.actions if isinstance(action, PatchTarget)]


@pytest.mark.parametrize(
    ("containers", "stopped"),
    [((asked(0, "5 of 5"),), False), ((ContainerFacts("smoke-test", running=True),), True), ((), True)],
)
def test_an_ended_run_keeps_the_job_that_told_its_result_and_stops_one_that_still_asks(
    containers: tuple[ContainerFacts, ...], stopped: bool
):
    run, action = begun()
    ended = replace(run, status=run.status.model_copy(update={"phase": Phase.SUCCEEDED}))

    decision = decided(a_smoke_job(action.name, *containers), ended)

    assert (DeleteJob(action.name) in decision.actions) == stopped


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (
            {
                "pods": (
                    PodFacts("p", created_at=at(-300), phase="Pending", unschedulable="0/1 nodes: no memory"),
                ),
                "created_at": at(-300),
            },
            "no memory",
        ),
        ({"pods": (), "created_at": at(-300)}, "has made no pod"),
        ({"pods": (), "suspended": True}, "is suspended"),
        ({"pods": (), "failed_reason": "BackoffLimitExceeded", "failed_message": "node lost"}, "node lost"),
    ],
)
def test_a_job_that_cannot_start_says_nothing_about_the_model_and_the_model_before_stays(
    job: dict[str, Any], words: str
):
    run, action = begun()

    waiting = decided(a_smoke_job(action.name, **job), run, seconds=0)

    assert phase_of(waiting) is RolloutPhase.SMOKE_TESTING
    assert condition(waiting, "RolledOut").status == "Unknown"
    assert condition(waiting, "RolledOut").reason == Reason.SMOKE_TEST_INCONCLUSIVE
    assert words in condition(waiting, "RolledOut").message
    assert "smokeTest.questions to 0" in condition(waiting, "RolledOut").message
    assert condition(waiting, "Stalled").status == "True"
    assert waiting.actions == ()


def test_a_job_that_told_nothing_is_made_anew_after_a_while():
    run, action = begun()
    lost = a_smoke_job(
        action.name, asked(20, "the store does not answer"), failed_reason="x", failed_at=at(0)
    )

    waiting = decided(lost, run, RETRY_SECONDS - 1)
    again = decided(lost, run, RETRY_SECONDS)
    made = decided(lost, after(run, again), RETRY_SECONDS)

    assert phase_of(waiting) is RolloutPhase.SMOKE_TESTING
    assert isinstance(made.actions[0], CreateSmokeTest)
    assert made.actions[0].name != action.name


def test_a_job_that_somebody_deleted_is_made_again():
    run, action = begun()

    again = decide(run, seen(target=target()), later(30))

    assert again.actions == (action,)


def test_a_target_that_is_made_anew_meanwhile_is_tested_anew():
    run, action = begun()
    job = a_smoke_job(action.name)
    observed = replace(seen(target=target(uid="another")), smoke_jobs=(job,))

    stopped = decide(run, observed, later(5))

    assert phase_of(stopped) is RolloutPhase.PREFLIGHT
    assert stopped.actions == (DeleteJob(action.name),)


def test_a_smoke_test_that_is_no_more_asked_for_is_given_up():
    run, action = begun()
    spec = a_run_with_test(questions=0).spec
    observed = replace(seen(target=target()), smoke_jobs=(a_smoke_job(action.name),))

    given_up = decide(replace(run, spec=spec), observed, later(5))
    patched = decide(after(replace(run, spec=spec), given_up), seen(target=target()), later(6))

    assert given_up.actions == (DeleteJob(action.name),)
    assert phase_of(patched) is RolloutPhase.PROGRESSING


@pytest.mark.parametrize("wish", ["cancel", "suspend"])
def test_a_run_that_is_stopped_leaves_no_job_behind(wish: str):
    run, action = begun()
    stopped = replace(run, spec=run.spec.model_copy(update={wish: True}))
    ended = a_smoke_job(action.name, complete=True, pods=())

    stopping = decided(a_smoke_job(action.name), stopped)
    over = decided(ended, stopped)

    assert stopping.actions == (DeleteJob(action.name),)
    assert stopping.status.phase not in (Phase.CANCELLED, Phase.SUSPENDED)
    assert over.status.phase in (Phase.CANCELLED, Phase.SUSPENDED)
