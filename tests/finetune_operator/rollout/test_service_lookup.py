"""Which Service is asked: the named one, or the one that selects the target's pods."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.rollout.service_lookup import find_service

Json = dict[str, Any]
DEPLOYMENT: Json = {
    "metadata": {"name": "chat"},
    "spec": {
        "template": {
            "metadata": {"labels": {"app": "chat", "tier": "web"}},
            "spec": {"containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8000}]}]},
        }
    },
}
HTTP = {"port": 80, "targetPort": "http"}


def a_service(name: str = "site", ports: Any = (HTTP,), **changes: Any) -> Json:
    spec = {"clusterIP": "10.96.0.7", "selector": {"app": "chat"}, "ports": list(ports)} | changes
    return {"metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        ([HTTP], 80),
        ([{"port": 8000}], 8000),
        ([{"port": 81, "targetPort": 8000}], 81),
        ([{"port": 9000, "targetPort": 9000}, HTTP], 80),
        ([{"port": 8000, "protocol": "UDP"}], 0),
        ([{"port": 80, "targetPort": "metrics"}], 0),
        ([{"port": 80}], 0),
    ],
)
def test_the_port_is_the_one_that_leads_to_the_serving_port(ports, found):
    service = find_service([a_service(ports=ports)], DEPLOYMENT, None, 8000)

    assert service.port == found
    assert service.name == ("site" if found else "")
    assert ("port 8000 of the pods" in service.problem) is not bool(found)


@pytest.mark.parametrize(
    "service",
    [
        a_service(selector={"app": "other"}),
        a_service(selector={"app": "chat", "tier": "api"}),
        a_service(selector={}),
        a_service(selector=None),
    ],
)
def test_a_service_that_selects_other_pods_or_none_is_not_taken(service):
    assert (
        "no Service selects the pods of deployment/chat"
        in find_service([service], DEPLOYMENT, None, 8000).problem
    )


def test_a_headless_service_is_passed_over_for_one_with_an_address():
    headless, other = a_service("a", clusterIP="None"), a_service("b")

    assert find_service([headless, other], DEPLOYMENT, None, 8000).name == "b"
    assert "headless" in find_service([headless], DEPLOYMENT, None, 8000).problem


def test_of_several_the_one_with_the_deployments_name_is_taken_else_the_first():
    services = [a_service("b"), a_service("a")]

    assert find_service(services, DEPLOYMENT, None, 8000).name == "a"
    assert find_service([*services, a_service("chat")], DEPLOYMENT, None, 8000).name == "chat"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing", 'Service "missing" (spec.rollout.service.name) does not exist'),
        ("elsewhere", 'Service "elsewhere" does not select the pods of deployment/chat'),
    ],
)
def test_a_named_service_that_cannot_be_asked_is_told_and_no_other_is_taken(name, problem):
    services = [a_service(), a_service("elsewhere", selector={"app": "other"})]

    found = find_service(services, DEPLOYMENT, name, 8000)

    assert (found.name, found.ip) == ("", "")
    assert problem in found.problem


def test_the_named_service_is_taken_though_another_selects_the_pods_too():
    assert find_service([a_service("chat"), a_service("b")], DEPLOYMENT, "b", 8000).name == "b"
