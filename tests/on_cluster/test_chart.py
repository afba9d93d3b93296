"""The chart on a real API server: what the installed operator may and may not do, and that `restricted` admits it."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.kubectl import tools_folder

pytestmark = pytest.mark.on_cluster

CHART = Path(__file__).parents[2] / "charts/finetune-operator"


class Release:
    """The chart's objects in a namespace that enforces the restricted pod security standard; without the CRD."""

    def __init__(self, kubeconfig: Path) -> None:
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self.namespace = f"chart-{uuid.uuid4().hex[:8]}"
        self.account = f"system:serviceaccount:{self.namespace}:finetune-operator"

    def run(self, program: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(tools_folder() / program), *arguments],
            input=text,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def done(self, program: str, *arguments: str, text: str = "") -> str:
        result = self.run(program, *arguments, text=text)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def may(self, verb: str, resource: str, namespace: str = "") -> bool:
        """Whether the operator's service account is allowed to; `resource` is `group/resource[/subresource]`."""
        group, name, *rest = resource.split("/")
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": self.account,
                "resourceAttributes": {
                    "verb": verb,
                    "group": group,
                    "resource": name,
                    "subresource": "".join(rest),
                    "namespace": namespace or self.namespace,
                },
            },
        }
        answer = self.done("kubectl", "create", "--filename=-", "--output=json", text=json.dumps(review))
        return bool(json.loads(answer)["status"]["allowed"])


@pytest.fixture(scope="module")
def release(cluster: Any) -> Iterator[Release]:
    release = Release(Path(cluster.kubeconfig))
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": release.namespace,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    release.done("kubectl", "apply", "--filename=-", text=json.dumps(namespace))
    rendered = release.done(
        *("helm", "template", "finetune-operator", str(CHART), f"--namespace={release.namespace}"),
        *("--set=crds.install=false", "--set=image.repository=nowhere.invalid/operator"),
        *("--set=podDisruptionBudget.enabled=true", "--set=networkPolicy.enabled=true"),
        '--set-json=stageNetworkPolicy.egress=[{"to":[{"ipBlock":{"cidr":"10.0.0.5/32"}}],"ports":[{"port":9000}]}]',
    )
    release.done("kubectl", "apply", "--filename=-", text=rendered)
    yield release
    release.done("kubectl", "delete", "namespace", release.namespace, "--wait=false")


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("watch", "finetune-operator.io/finetuneruns"),
        ("patch", "finetune-operator.io/finetuneruns/status"),
        ("create", "finetune-operator.io/finetuneruns"),
        ("delete", "finetune-operator.io/finetuneruns"),
        ("watch", "finetune-operator.io/finetuneschedules"),
        ("patch", "finetune-operator.io/finetuneschedules/status"),
        ("create", "/configmaps"),
        ("create", "/services"),
        ("list", "/services"),
        ("list", "kueue.x-k8s.io/workloads"),
        ("create", "batch/jobs"),
        ("delete", "batch/jobs"),
        ("watch", "/pods"),
        ("get", "/pods/log"),
        ("patch", "apps/deployments"),
        ("create", "/events"),
        ("update", "coordination.k8s.io/leases"),
    ],
)
def test_the_operator_may_do_its_work(release: Release, verb: str, resource: str) -> None:
    assert release.may(verb, resource)


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("get", "/secrets"),
        ("list", "/secrets"),
        ("create", "/pods"),
        ("delete", "/services"),
        ("patch", "/services"),
        ("create", "networking.k8s.io/networkpolicies"),
        ("update", "kueue.x-k8s.io/workloads"),
        ("create", "/pods/exec"),
        ("delete", "apps/deployments"),
        ("update", "finetune-operator.io/finetuneruns"),
        ("update", "finetune-operator.io/finetuneschedules"),
        ("create", "rbac.authorization.k8s.io/roles"),
    ],
)
def test_the_operator_may_do_nothing_else(release: Release, verb: str, resource: str) -> None:
    assert not release.may(verb, resource)


@pytest.mark.parametrize(("verb", "resource"), [("get", "/pods"), ("create", "batch/jobs")])
def test_rights_end_at_the_namespace(release: Release, verb: str, resource: str) -> None:
    assert not release.may(verb, resource, namespace="default")


def test_the_restricted_pod_security_standard_admits_the_pods(release: Release) -> None:
    deployment = json.loads(
        release.done(
            *("kubectl", "get", "deployment", "finetune-operator", "--output=json"),
            f"--namespace={release.namespace}",
        )
    )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": release.namespace},
        "spec": deployment["spec"]["template"]["spec"],
    }

    release.done("kubectl", "create", "--dry-run=server", "--filename=-", text=json.dumps(pod))


def test_the_same_standard_refuses_a_pod_with_more_rights(release: Release) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": release.namespace},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }

    refused = release.run("kubectl", "create", "--dry-run=server", "--filename=-", text=yaml.safe_dump(pod))

    assert refused.returncode != 0
    assert "violates PodSecurity" in refused.stderr
