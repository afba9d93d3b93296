"""What must be true of the target, and how the user is told."""

from __future__ import annotations

from dataclasses import replace

from finetune_contract.run_spec import DeploymentTarget
from finetune_contract.run_status import Reason
from finetune_operator.observed import NO_MODEL, EnvEntry, Observed, TemplateContainer
from finetune_operator.rollout.patch import payload, pointer_in
from finetune_operator.rollout.preflight import obstacle_to_patch, obstacle_to_start
from tests.finetune_operator.samples import NEW_MODEL, OLD_MODEL, a_deployment, seen

TARGET = DeploymentTarget(name="chat")


def test_a_target_as_it_should_be_is_no_obstacle():
    assert obstacle_to_start(TARGET, seen()) is None
    assert obstacle_to_patch(TARGET, seen()) is None


def test_a_paused_target_may_be_started_for_but_not_patched():
    paused = seen(target=replace(a_deployment(), paused=True))

    assert obstacle_to_start(TARGET, paused) is None
    obstacle = obstacle_to_patch(TARGET, paused)
    assert obstacle is not None
    assert "kubectl rollout resume deployment/chat" in obstacle.message


def test_a_pod_without_any_readiness_probe_is_refused():
    server = TemplateContainer("model-server")
    obstacle = obstacle_to_start(TARGET, seen(target=replace(a_deployment(), containers=(server,))))

    assert obstacle is not None
    assert obstacle.reason is Reason.INVALID_SPEC
    assert "readinessProbe" in obstacle.message


def test_a_value_from_elsewhere_on_our_names_is_a_conflict():
    fetch = TemplateContainer("model-fetch", (EnvEntry("MODEL_URI", from_elsewhere=True),))
    obstacle = obstacle_to_start(TARGET, seen(target=replace(a_deployment(), init_containers=(fetch,))))

    assert obstacle is not None
    assert obstacle.reason is Reason.FIELD_CONFLICT
    assert "MODEL_URI by valueFrom" in obstacle.message


def test_many_deployments_are_listed_only_in_part():
    names = tuple(f"site-{number:02d}" for number in range(14))
    obstacle = obstacle_to_start(TARGET, Observed(deployments=names))

    assert obstacle is not None
    assert "site-09 and 4 more" in obstacle.message


def test_the_probe_of_the_container_that_answers_readers_is_enough():
    containers = (TemplateContainer("model-server"), TemplateContainer("web", readiness_probe=True))

    assert obstacle_to_start(TARGET, seen(target=replace(a_deployment(), containers=containers))) is None


def test_a_native_sidecar_may_serve_the_model():
    sidecar = TemplateContainer("model-server", (), readiness_probe=True, restarts_always=True)
    fetch = TemplateContainer("model-fetch")
    target = replace(a_deployment(), init_containers=(fetch, sidecar), containers=(TemplateContainer("web"),))

    patch = payload(TARGET, target, NEW_MODEL)

    assert obstacle_to_start(TARGET, seen(target=target)) is None
    assert [c["name"] for c in patch["spec"]["template"]["spec"]["initContainers"]] == [
        "model-fetch",
        "model-server",
    ]
    assert "containers" not in patch["spec"]["template"]["spec"]


def test_the_pointer_is_read_from_both_containers():
    assert pointer_in(TARGET, a_deployment(OLD_MODEL)) == OLD_MODEL
    assert pointer_in(TARGET, a_deployment(NO_MODEL)) == NO_MODEL
