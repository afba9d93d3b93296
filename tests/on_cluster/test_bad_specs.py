"""Specs that cannot work are refused by the real API server, each in words that a person has read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config

from devcluster.access import Access
from tests.bad_specs import ROOT, ROWS, name_of, spec_of

pytestmark = pytest.mark.on_cluster

GROUP, VERSION, PLURAL = "finetune-operator.io", "v1alpha1", "finetuneruns"
CRD = f"crd/{PLURAL}.{GROUP}"
PATTERN = " in body should match '"
"""Kubernetes repeats the regular expression; the words for people stand in a message of ours beside it."""
NO_FIELD = "<nil>: "
"""Kubernetes adds notes that name no field: that some rules were not checked, or a wrong type once more."""


@pytest.fixture(scope="module")
def runs(cluster: Access) -> Iterator[client.CustomObjectsApi]:
    """A CRD that was there is updated and stays; one that was not there goes again."""
    was_there = CRD.removeprefix("crd/") in cluster.kubectl("get", "crds", "--output=name")
    apply = ("apply", "--server-side", "--force-conflicts")
    cluster.kubectl(*apply, f"--filename={ROOT / 'crds/finetuneruns.yaml'}")
    # A CRD that was made this moment has no list of conditions yet, and `wait` fails on that.
    cluster.kubectl("wait", "--for=jsonpath={.status.acceptedNames.kind}=FineTuneRun", CRD, "--timeout=60s")
    cluster.kubectl("wait", "--for=condition=Established", CRD, "--timeout=60s")
    with config.new_client_from_config(str(cluster.kubeconfig)) as api:
        yield client.CustomObjectsApi(api)
    if not was_there:
        cluster.kubectl("delete", CRD, "--timeout=60s")


def refusal(runs: client.CustomObjectsApi, spec: dict[str, Any]) -> list[str]:
    """What the API server says, as `kubectl` shows it; empty when it takes the spec."""
    body = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "FineTuneRun",
        "metadata": {"name": "bad"},
        "spec": spec,
    }
    options = {"dry_run": "All", "field_validation": "Strict"}
    try:
        runs.create_namespaced_custom_object(GROUP, VERSION, "default", PLURAL, body, **options)
    except client.ApiException as error:
        said = json.loads(error.body)
        causes = (said.get("details") or {}).get("causes") or []
        found = [f"{cause['field']}: {cause['message']}" for cause in causes] or [said["message"]]
        return [
            line.partition("cannot be handled as a FineTuneRun: ")[2] or line
            for line in found
            if PATTERN not in line and not line.startswith(NO_FIELD)
        ]
    return []


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_a_spec_that_cannot_work_is_refused_by_the_api_server_in_these_words(
    runs: client.CustomObjectsApi, row: dict[str, Any]
) -> None:
    wanted = row["server"] if isinstance(row["server"], list) else [row["server"]]

    assert refusal(runs, spec_of(row)) == wanted


def test_the_example_itself_is_taken(runs: client.CustomObjectsApi) -> None:
    assert refusal(runs, spec_of({"path": "suspend", "value": True})) == []


def test_no_secret_that_was_pasted_into_a_spec_is_repeated(runs: client.CustomObjectsApi) -> None:
    for path, value in (
        ("baseModel.tokenSecretRef", {"name": "hf_Hunter2", "key": "token"}),
        ("baseModel.tokenSecretRef", {"name": "hf", "key": "hunter2 hunter2"}),
        ("baseModel.tokenSecretRef", "hf_Hunter2"),
        ("dataset.generator", {"url": "https://reader:hunter2@vllm.example", "model": "m"}),
        ("store.s3.endpoint", "https://reader:hunter2@s3.example"),
        ("store.s3.secretAccessKey", "hunter2"),
    ):
        said = refusal(runs, spec_of({"path": path, "value": value}))

        assert said, path
        assert "hunter2" not in "".join(said).lower(), path
