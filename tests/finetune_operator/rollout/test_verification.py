"""Each ready pod must name the very model that was rolled out."""

from __future__ import annotations

import pytest

from finetune_contract.run_spec import DeploymentTarget
from finetune_operator.observed import ContainerFacts, ServedModel, Termination
from finetune_operator.rollout.progress import Complete, Failed, Waiting
from finetune_operator.rollout.verification import steady, verify
from tests.finetune_operator.samples import a_target_pod, at, later


@pytest.mark.parametrize(
    ("served", "replicas", "expected"),
    [
        ((), 1, Waiting),
        ((ServedModel("a", "sha256:new"),), 1, Complete),
        ((ServedModel("a", "sha256:new"),), 2, Waiting),
        ((ServedModel("a", "sha256:new"), ServedModel("b", "sha256:old")), 2, Failed),
        ((ServedModel("a", problem="refused"), ServedModel("b", "sha256:old")), 2, Failed),
        ((ServedModel("a", "sha256:new"), ServedModel("b", problem="refused")), 2, Waiting),
    ],
)
def test_the_answers_decide(served, replicas, expected):
    assert isinstance(verify(served, "sha256:new", replicas), expected)


def a_server(**changes: object) -> ContainerFacts:
    return ContainerFacts("model-server", ready=True, running=True, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (a_server(started_at=at(0)), Complete),
        (a_server(started_at=at(15)), Waiting),
        (a_server(), Complete),
        (
            a_server(started_at=at(0), restarts=1, last_terminated=Termination(139, "Error", "segfault")),
            Failed,
        ),
        (a_server(started_at=at(0), restarts=1, last_terminated=Termination(0)), Complete),
        (ContainerFacts("model-server", terminated=Termination(139, "Error", "segfault")), Failed),
        (ContainerFacts("model-server", terminated=Termination(0)), Waiting),
    ],
)
def test_a_model_that_was_ready_for_an_instant_only_does_not_pass(server, expected):
    pods = (a_target_pod(server, ready=True),)

    assert isinstance(steady(DeploymentTarget(name="chat"), pods, 10, later(20)), expected)


def test_other_containers_may_restart():
    web = ContainerFacts("web", ready=True, restarts=4, last_terminated=Termination(1))

    assert (
        steady(DeploymentTarget(name="chat"), (a_target_pod(web, ready=True),), 10, later(20)) == Complete()
    )


def test_a_crash_of_any_pod_counts_before_the_others_are_watched_to_the_end():
    young = a_target_pod(a_server(started_at=at(15)), ready=True)
    crashed = a_server(started_at=at(16), restarts=1, last_terminated=Termination(139, "Error", "segfault"))

    seen = steady(DeploymentTarget(name="chat"), (young, a_target_pod(crashed, ready=True)), 60, later(20))

    assert isinstance(seen, Failed)
    assert "exit code 139" in seen.message


def test_the_youngest_pod_is_watched_for_the_whole_window():
    pods = [a_target_pod(a_server(started_at=at(seconds)), ready=True) for seconds in (0, 40)]

    seen = steady(DeploymentTarget(name="chat"), tuple(pods), 60, later(70))

    assert seen == Waiting("the new pods are watched: 30s of 1m00s")
    assert steady(DeploymentTarget(name="chat"), tuple(pods), 60, later(100)) == Complete()
