"""A Deployment's JSON as facts about room, time and ownership."""

from __future__ import annotations

import pytest

from finetune_operator.rollout.target_shape import (
    TargetShape,
    Volume,
    Writer,
    claim_size,
    quantity,
    resolved_fence,
    target_shape,
)

OURS = {"model-fetch": ("MODEL_URI", "MODEL_MANIFEST_SHA256"), "model-server": ("MODEL_ID",)}


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("512Mi", 512 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("500M", 500_000_000),
        ("1e9", 1_000_000_000),
        ("128974848", 128974848),
        ("128974848000m", 128974848),
        ("128974848000000u", 128974848),
        ("128974848000000000n", 128974848),
        (None, 0),
        ("much", 0),
    ],
)
def test_a_quantity_is_read_as_the_api_server_does(text, bytes_):
    assert quantity(text) == bytes_


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "pods"),
    [
        ("25%", "25%", 1, (1, 0)),
        ("25%", "25%", 4, (1, 1)),
        (1, 0, 3, (1, 0)),
        (0, 1, 3, (0, 1)),
        ("0%", "10%", 3, (0, 1)),
        ("50%", 0, 3, (2, 0)),
    ],
)
def test_the_strategy_is_resolved_as_the_deployments_controller_does(surge, unavailable, replicas, pods):
    assert resolved_fence(surge, unavailable, replicas) == pods


def test_everything_is_read_from_a_whole_manifest():
    body = {
        "metadata": {
            "managedFields": [
                {
                    "manager": "argocd-controller",
                    "time": "2026-03-01T10:00:00Z",
                    "fieldsV1": {
                        "f:spec": {
                            "f:template": {
                                "f:spec": {
                                    "f:initContainers": {
                                        'k:{"name":"model-fetch"}': {
                                            "f:env": {'k:{"name":"MODEL_URI"}': {".": {}, "f:value": {}}}
                                        },
                                        'k:{"name":"embedding-fetch"}': {
                                            "f:env": {'k:{"name":"MODEL_MANIFEST_SHA256"}': {}}
                                        },
                                    },
                                    "f:containers": {
                                        'k:{"name":"web"}': {"f:env": {'k:{"name":"MODEL_ID"}': {}}}
                                    },
                                }
                            }
                        }
                    },
                },
                {"manager": "finetune-operator", "time": "2026-03-01T11:00:00Z", "fieldsV1": {}},
                {"manager": "kube-controller-manager", "subresource": "status"},
                {"manager": "kubectl-create", "time": "2026-03-01T09:00:00Z", "fieldsV1": {"f:spec": {}}},
            ]
        },
        "spec": {
            "replicas": 4,
            "progressDeadlineSeconds": 90,
            "minReadySeconds": 5,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}},
            "template": {
                "spec": {
                    "initContainers": [
                        {
                            "name": "model-fetch",
                            "resources": {"requests": {"memory": "128Mi"}},
                            "volumeMounts": [
                                {"name": "disk", "mountPath": "/"},
                                {"name": "models", "mountPath": "/models/"},
                            ],
                        },
                        {
                            "name": "model-server",
                            "restartPolicy": "Always",
                            "resources": {"requests": {"memory": "384Mi"}, "limits": {"memory": "1Gi"}},
                        },
                    ],
                    "containers": [{"name": "web", "resources": {"limits": {"memory": "256Mi"}}}],
                    "volumes": [
                        {"name": "models", "emptyDir": {"sizeLimit": "2Gi"}},
                        {"name": "disk", "persistentVolumeClaim": {"claimName": "cache"}},
                    ],
                }
            },
        },
    }

    shape = target_shape(body, "finetune-operator", OURS)

    assert (shape.max_surge, shape.max_unavailable, shape.recreates) == (2, 0, False)
    assert (shape.progress_deadline_seconds, shape.min_ready_seconds) == (90, 5)
    assert shape.memory_limit("model-server") == 2**30
    assert shape.memory_limit("model-fetch") is None
    assert shape.pod_memory_bytes == (384 + 256) * 2**20
    assert shape.volume_at("model-fetch", "/models") == Volume("models", limit_bytes=2 * 2**30)
    assert shape.volume_at("model-fetch", "/other") == Volume("disk", claim="cache")
    assert shape.volume_at("web", "/models") is None
    assert shape.writers == (
        Writer("kubectl-create", "2026-03-01T09:00:00Z"),
        Writer("argocd-controller", "2026-03-01T10:00:00Z", ("MODEL_URI",)),
    )


@pytest.mark.parametrize(
    ("where", "container", "variable", "owns"),
    [
        ("f:initContainers", "model-fetch", "MODEL_MANIFEST_SHA256", ("MODEL_MANIFEST_SHA256",)),
        ("f:containers", "model-server", "MODEL_ID", ("MODEL_ID",)),
        ("f:initContainers", "model-server", "MODEL_ID", ("MODEL_ID",)),
        ("f:initContainers", "model-fetch", "MODEL_ID", ()),
        ("f:initContainers", "embedding-fetch", "MODEL_URI", ()),
        ("f:containers", "web", "MODEL_ID", ()),
    ],
)
def test_who_owns_such_a_variable_of_another_container_owns_nothing_of_ours(where, container, variable, owns):
    env = {"f:env": {f'k:{{"name":"{variable}"}}': {"f:value": {}}}}
    pod = {where: {f'k:{{"name":"{container}"}}': env}}
    entry = {"manager": "helm", "fieldsV1": {"f:spec": {"f:template": {"f:spec": pod}}}}

    shape = target_shape({"metadata": {"managedFields": [entry]}}, "finetune-operator", OURS)

    assert shape.writers == (Writer("helm", owns=owns),)


def test_a_claim_has_the_size_that_it_got_or_else_asked_for():
    asked = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    got = asked | {"status": {"capacity": {"storage": "2Gi"}}}
    shape = TargetShape(volumes=(Volume("disk", claim="cache"), Volume("tmp")))

    assert (claim_size(asked), claim_size(got), claim_size({})) == (2**30, 2**31, 0)
    assert shape.with_claim("cache", 2**30).volumes == (
        Volume("disk", claim="cache", limit_bytes=2**30),
        Volume("tmp"),
    )


def test_what_a_manifest_leaves_out_has_the_api_servers_defaults():
    assert target_shape({"metadata": {}, "spec": {}}, "finetune-operator", OURS) == TargetShape()
