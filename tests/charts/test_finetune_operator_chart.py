"""The chart, rendered by the real helm: the defaults, then one test an option."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from devcluster.kubectl import tools_folder
from finetune_contract import VERSION
from finetune_contract.crd_files import KINDS
from finetune_contract.crd_schema import custom_resource_definition
from finetune_contract.run_spec import RolloutSpec

CHART = Path(__file__).parents[2] / "charts/finetune-operator"
KUBERNETES = "1.37"
DIGEST = "sha256:" + "0123456789abcdef" * 4

RUN_RULES = {
    ("finetune-operator.io", "finetuneruns"): {"get", "list", "watch", "create", "patch", "delete"},
    ("finetune-operator.io", "finetuneruns/finalizers"): {"update"},
    ("finetune-operator.io", "finetuneschedules/finalizers"): {"update"},
    ("finetune-operator.io", "finetuneruns/status"): {"get", "patch", "update"},
    ("finetune-operator.io", "finetuneschedules"): {"get", "list", "watch"},
    ("finetune-operator.io", "finetuneschedules/status"): {"get", "patch", "update"},
    ("", "configmaps"): {"create", "get", "patch", "delete"},
    ("", "services"): {"create", "list"},
    ("kueue.x-k8s.io", "workloads"): {"list"},
    ("batch", "jobs"): {"create", "get", "list", "watch", "delete"},
    ("", "pods"): {"get", "list", "watch"},
    ("", "pods/log"): {"get"},
    ("", "persistentvolumeclaims"): {"get"},
    ("apps", "deployments"): {"get", "list", "watch", "patch"},
    ("apps", "replicasets"): {"get", "list", "watch"},
    ("", "events"): {"create", "patch"},
    ("events.k8s.io", "events"): {"create", "patch"},
}
LEASE_RULES = {("coordination.k8s.io", "leases"): {"get", "create", "update"}}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(tools_folder() / "helm"), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def render(*settings: str) -> list[dict[str, Any]]:
    """The objects of release `tuner` in namespace `ops`, with `key=value` settings."""
    chosen = [part for setting in settings for part in ("--set-json", setting)]
    done = helm("template", "tuner", str(CHART), "--namespace", "ops", *chosen)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refusal(*settings: str) -> str:
    """What helm says of settings that it refuses."""
    chosen = [part for setting in settings for part in ("--set-json", setting)]
    done = helm("template", "tuner", str(CHART), "--namespace", "ops", *chosen)
    assert done.returncode != 0, "helm accepted the settings"
    return done.stderr


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] == kind]


def the(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = of_kind(documents, kind)
    return found


def pod(documents: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = the(documents, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = pod(documents)["containers"]
    assert isinstance(found, dict)
    return found


def env(documents: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container(documents)["env"]}


def granted(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@pytest.fixture(scope="module")
def defaults() -> list[dict[str, Any]]:
    return render()


def test_lint_finds_nothing() -> None:
    done = helm("lint", "--strict", str(CHART))

    assert done.returncode == 0, done.stdout + done.stderr


def test_defaults_make_one_operator_with_its_rights_and_the_crd(defaults: list[dict[str, Any]]) -> None:
    assert sorted((document["kind"], document["metadata"]["name"]) for document in defaults) == [
        ("CustomResourceDefinition", "finetuneruns.finetune-operator.io"),
        ("CustomResourceDefinition", "finetuneschedules.finetune-operator.io"),
        ("Deployment", "tuner-finetune-operator"),
        ("NetworkPolicy", "tuner-finetune-operator-stages"),
        ("NetworkPolicy", "tuner-finetune-operator-training"),
        ("Role", "tuner-finetune-operator"),
        ("Role", "tuner-finetune-operator-lease"),
        ("RoleBinding", "tuner-finetune-operator"),
        ("RoleBinding", "tuner-finetune-operator-lease"),
        ("ServiceAccount", "tuner-finetune-operator"),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["replicaCount=2", "podDisruptionBudget.enabled=true", "networkPolicy.enabled=true"],
        ["watch.allNamespaces=true"],
        ['watch.namespaces=["a","b"]', 'tolerations=[{"key":"infra","operator":"Exists"}]'],
        [
            'stageNetworkPolicy.egress=[{"to":[{"ipBlock":{"cidr":"10.0.0.5/32"}}],"ports":[{"port":9000}]}]',
            'watch.namespaces=["a","b"]',
        ],
    ],
    ids=["defaults", "two replicas with fences", "all namespaces", "two namespaces", "fenced stages"],
)
def test_every_object_is_valid(settings: list[str]) -> None:
    for document in render(*settings):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_the_same_values_render_the_same_objects(defaults: list[dict[str, Any]]) -> None:
    assert render() == defaults


def test_chart_and_contract_have_the_same_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))

    assert chart["appVersion"] == chart["version"] == VERSION


def test_a_release_called_like_the_chart_does_not_repeat_the_name() -> None:
    done = helm("template", "finetune-operator", str(CHART), "--namespace", "ops")

    deployment = the([document for document in yaml.safe_load_all(done.stdout) if document], "Deployment")
    assert deployment["metadata"]["name"] == "finetune-operator"


# What the pod may do


def test_the_pod_meets_the_restricted_pod_security_standard(defaults: list[dict[str, Any]]) -> None:
    assert pod(defaults)["securityContext"]["runAsNonRoot"] is True
    assert pod(defaults)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(defaults))
    assert container(defaults)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [set(volume) - {"name"} for volume in pod(defaults)["volumes"]] == [{"emptyDir"}]


def test_rights_are_exactly_those_that_are_needed(defaults: list[dict[str, Any]]) -> None:
    rights = {role["metadata"]["name"]: granted(role) for role in of_kind(defaults, "Role")}

    assert rights == {"tuner-finetune-operator": RUN_RULES, "tuner-finetune-operator-lease": LEASE_RULES}


@pytest.mark.parametrize("settings", [[], ["watch.allNamespaces=true"]], ids=["namespaced", "cluster"])
def test_the_operator_reads_no_secret_and_enters_no_pod(settings: list[str]) -> None:
    documents = render(*settings)
    roles = of_kind(documents, "Role") + of_kind(documents, "ClusterRole")

    for role in roles:
        for (_, resource), verbs in granted(role).items():
            assert resource not in ("secrets", "pods/exec", "*")
            assert "*" not in verbs


# Options


def test_the_command_and_the_environment_are_those_that_the_operator_reads(
    defaults: list[dict[str, Any]],
) -> None:
    assert container(defaults)["command"] == ["finetune-operator"]
    assert env(defaults) == {
        "FINETUNE_WATCH_NAMESPACES": "ops",
        "FINETUNE_TRAINER_IMAGE": f"finetune-trainer:{VERSION}",
        "FINETUNE_LEASE_NAME": "tuner-finetune-operator",
        "FINETUNE_LOG_FORMAT": "json",
        "FINETUNE_LOG_LEVEL": "INFO",
        "FINETUNE_HTTP_PORT": "8080",
        "POD_NAME": "",
        "POD_NAMESPACE": "",
    }
    paths = {
        entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in container(defaults)["env"]
        if "valueFrom" in entry
    }
    assert paths == {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}


def test_probes_ask_the_http_port(defaults: list[dict[str, Any]]) -> None:
    assert container(defaults)["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container(defaults)["startupProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container(defaults)["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container(defaults)["ports"][0]["name"] == "http"


def test_http_port_moves_port_and_setting_together() -> None:
    documents = render("httpPort=9090")

    assert container(documents)["ports"][0]["containerPort"] == 9090
    assert env(documents)["FINETUNE_HTTP_PORT"] == "9090"


def test_prices_of_gpus_reach_the_operator_and_none_are_known_by_default(
    defaults: list[dict[str, Any]],
) -> None:
    documents = render('prices={"gpuHour": {"nvidia.com/gpu": 2.49, "amd.com/gpu": 1}, "currency": "EUR"}')

    assert env(documents)["FINETUNE_GPU_PRICES"] == "amd.com/gpu=1,nvidia.com/gpu=2.49"
    assert env(documents)["FINETUNE_CURRENCY"] == "EUR"
    assert "FINETUNE_GPU_PRICES" not in env(defaults)


def test_two_replicas_prefer_different_nodes() -> None:
    documents = render("replicaCount=2")

    assert the(documents, "Deployment")["spec"]["replicas"] == 2
    (preference,) = pod(documents)["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert preference["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"


def test_own_affinity_replaces_that_preference() -> None:
    documents = render("replicaCount=2", 'affinity={"nodeAffinity":{}}')

    assert pod(documents)["affinity"] == {"nodeAffinity": {}}


def test_three_replicas_are_refused() -> None:
    assert "replicaCount" in refusal("replicaCount=3")


def test_image_by_tag() -> None:
    documents = render(
        'image.repository="registry.example/op"', 'image.tag="1.2.3"', 'image.pullPolicy="Never"'
    )

    assert container(documents)["image"] == "registry.example/op:1.2.3"
    assert container(documents)["imagePullPolicy"] == "Never"


def test_digest_wins_over_tag() -> None:
    documents = render(f'image.digest="{DIGEST}"', 'image.tag="1.2.3"', f'trainerImage.digest="{DIGEST}"')

    assert container(documents)["image"] == f"finetune-operator@{DIGEST}"
    assert env(documents)["FINETUNE_TRAINER_IMAGE"] == f"finetune-trainer@{DIGEST}"


def test_a_digest_that_is_none_is_refused() -> None:
    assert "digest" in refusal('image.digest="latest"')


def test_pull_secrets_reach_the_pod() -> None:
    assert pod(render('imagePullSecrets=[{"name":"registry"}]'))["imagePullSecrets"] == [{"name": "registry"}]


def test_each_watched_namespace_gets_a_role_and_the_lease_stays_at_home() -> None:
    documents = render('watch.namespaces=["a","b"]')

    roles = {(role["metadata"]["namespace"], role["metadata"]["name"]) for role in of_kind(documents, "Role")}
    assert roles == {
        ("a", "tuner-finetune-operator"),
        ("b", "tuner-finetune-operator"),
        ("ops", "tuner-finetune-operator-lease"),
    }
    assert env(documents)["FINETUNE_WATCH_NAMESPACES"] == "a,b"


@pytest.mark.parametrize("name", ["no", "on", "1234"])
def test_names_that_yaml_takes_for_something_else_stay_names(name: str) -> None:
    every = ("serviceMonitor", "prometheusRule", "grafanaDashboard", "podDisruptionBudget", "networkPolicy")
    switches = [part for value in every for part in ("--set", f"{value}.enabled=true")]
    watched = f'watch.namespaces=["{name}"]'
    done = helm(
        "template",
        name,
        str(CHART),
        "--namespace",
        name,
        *switches,
        "--set-string",
        f"serviceAccount.name={name}",
        "--set-string",
        f"priorityClassName={name}",
        "--set-json",
        watched,
    )
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]

    for document in documents:
        metadata = document["metadata"]
        told = [metadata["name"], metadata.get("namespace", ""), *metadata.get("labels", {}).values()]
        told += [part[key] for part in document.get("subjects", []) for key in ("name", "namespace")]
        assert [part for part in told if not isinstance(part, str)] == [], document["kind"]
    spec = pod(documents)
    assert spec["serviceAccountName"] == spec["priorityClassName"] == name
    selector = the(documents, "Deployment")["spec"]["selector"]["matchLabels"]
    assert selector["app.kubernetes.io/instance"] == name


def test_every_binding_binds_its_role_to_the_operator() -> None:
    documents = render('watch.namespaces=["a","b"]')
    bindings = of_kind(documents, "RoleBinding")

    assert len(bindings) == 3
    for binding in bindings:
        assert binding["roleRef"]["name"] == binding["metadata"]["name"]
        (subject,) = binding["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": "tuner-finetune-operator", "namespace": "ops"}


def test_all_namespaces_take_a_cluster_role() -> None:
    documents = render("watch.allNamespaces=true")

    assert granted(the(documents, "ClusterRole")) == RUN_RULES
    assert the(documents, "ClusterRoleBinding")["roleRef"]["name"] == "tuner-finetune-operator"
    assert granted(the(documents, "Role")) == LEASE_RULES
    assert env(documents)["FINETUNE_WATCH_NAMESPACES"] == "*"


def test_all_namespaces_and_some_namespaces_contradict_each_other() -> None:
    assert "set one of them" in refusal("watch.allNamespaces=true", 'watch.namespaces=["a"]')


def test_rights_may_be_left_to_an_administrator() -> None:
    kinds = {document["kind"] for document in render("rbac.create=false")}

    assert kinds == {"CustomResourceDefinition", "Deployment", "NetworkPolicy", "ServiceAccount"}


def test_an_existing_service_account_is_used() -> None:
    documents = render("serviceAccount.create=false", 'serviceAccount.name="robot"')

    assert not of_kind(documents, "ServiceAccount")
    assert pod(documents)["serviceAccountName"] == "robot"
    assert {binding["subjects"][0]["name"] for binding in of_kind(documents, "RoleBinding")} == {"robot"}


def test_an_existing_service_account_must_be_named() -> None:
    assert "serviceAccount.name" in refusal("serviceAccount.create=false")


def test_service_account_annotations_are_set() -> None:
    account = the(render('serviceAccount.annotations={"cloud.example/role":"tuner"}'), "ServiceAccount")

    assert account["metadata"]["annotations"] == {"cloud.example/role": "tuner"}


def test_the_crds_are_the_generated_ones_and_outlive_the_release(defaults: list[dict[str, Any]]) -> None:
    crds = of_kind(defaults, "CustomResourceDefinition")

    assert [crd["metadata"].pop("annotations") for crd in crds] == [{"helm.sh/resource-policy": "keep"}] * 2
    assert crds == [custom_resource_definition(kind) for kind in KINDS]


def test_the_crds_may_go_with_the_release() -> None:
    crds = of_kind(render("crds.keep=false"), "CustomResourceDefinition")

    assert not any("annotations" in crd["metadata"] for crd in crds)


def test_the_crd_may_come_from_elsewhere() -> None:
    assert not of_kind(render("crds.install=false"), "CustomResourceDefinition")


def test_log_format_and_level_are_passed_on() -> None:
    documents = render('log={"format":"text","level":"DEBUG"}')

    assert env(documents)["FINETUNE_LOG_FORMAT"] == "text"
    assert env(documents)["FINETUNE_LOG_LEVEL"] == "DEBUG"


def test_more_environment_is_added() -> None:
    assert (
        env(render('extraEnv=[{"name":"HTTPS_PROXY","value":"http://p:1"}]'))["HTTPS_PROXY"] == "http://p:1"
    )


def test_pod_annotations_and_labels_are_set_and_the_selector_stays() -> None:
    documents = render('podAnnotations={"a":"1"}', 'podLabels={"team":"docs"}')
    deployment = the(documents, "Deployment")["spec"]

    assert deployment["template"]["metadata"]["annotations"] == {"a": "1"}
    assert deployment["template"]["metadata"]["labels"]["team"] == "docs"
    assert set(deployment["selector"]["matchLabels"]) == {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
    }


def test_placement_is_passed_on() -> None:
    documents = render(
        'nodeSelector={"pool":"infra"}', 'tolerations=[{"key":"infra"}]', 'priorityClassName="high"'
    )

    assert pod(documents)["nodeSelector"] == {"pool": "infra"}
    assert pod(documents)["tolerations"] == [{"key": "infra"}]
    assert pod(documents)["priorityClassName"] == "high"


def test_resources_are_passed_on() -> None:
    documents = render('resources={"requests":{"cpu":"1","memory":"1Gi"},"limits":{"memory":"2Gi"}}')

    assert container(documents)["resources"] == {
        "requests": {"cpu": "1", "memory": "1Gi"},
        "limits": {"memory": "2Gi"},
    }


def test_a_disruption_budget_lets_one_pod_go() -> None:
    budget = the(render("podDisruptionBudget.enabled=true"), "PodDisruptionBudget")

    assert budget["spec"]["maxUnavailable"] == 1


def test_a_network_policy_leaves_probes_names_the_api_server_and_the_question_which_model_is_served() -> None:
    documents = render("networkPolicy.enabled=true", "networkPolicy.apiServerPorts=[6443]")
    (policy,) = [
        found
        for found in of_kind(documents, "NetworkPolicy")
        if found["metadata"]["name"] == "tuner-finetune-operator"
    ]

    assert policy["spec"]["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    anywhere = {
        port["port"] for rule in policy["spec"]["egress"] if "to" not in rule for port in rule["ports"]
    }
    pods = [rule for rule in policy["spec"]["egress"] if "to" in rule]
    assert anywhere == {53, 6443}
    assert [rule["to"] for rule in pods] == [[{"namespaceSelector": {}}]]
    assert [port["port"] for port in pods[0]["ports"]] == [RolloutSpec.model_fields["serving_port"].default]


# Values


def test_an_unknown_value_is_refused_at_every_level() -> None:
    assert "additional" in refusal("replicas=2").lower()
    assert "additional" in refusal('image.digset=""').lower()


def test_every_value_has_a_comment_a_schema_and_a_line_in_the_readme() -> None:
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    schema = (CHART / "values.schema.json").read_text(encoding="utf-8")
    readme = (CHART / "README.md").read_text(encoding="utf-8")

    for number, line in enumerate(lines):
        name, colon, value = line.strip().partition(":")
        if not colon or name.startswith(("#", "-")) or name in ("requests", "limits", "cpu", "memory"):
            continue
        assert f'"{name}"' in schema, name
        if value.strip():
            assert lines[number - 1].strip().startswith("#"), f"values.yaml, line {number + 1}: {name}"
        if not line.startswith(" "):
            assert f"`{name}`" in readme, name


def notes(*settings: str) -> str:
    chosen = [part for setting in settings for part in ("--set-json", setting)]
    done = helm("install", "tuner", str(CHART), "--namespace", "ops", "--dry-run=client", *chosen)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("NOTES:")[1]


def test_notes_say_that_no_stage_is_fenced_in_where_no_namespace_is_named() -> None:
    everywhere = "watch.allNamespaces=true"

    assert "No stage is fenced in" in notes(everywhere)
    assert "No stage is fenced in" not in notes(everywhere, 'stageNetworkPolicy.namespaces=["docs"]')
    assert "No stage is fenced in" not in notes()


def test_whoever_installs_the_crds_by_hand_is_told_of_both() -> None:
    for place in (
        notes("crds.install=false"),
        *((CHART / name).read_text(encoding="utf-8") for name in ("README.md", "values.yaml")),
    ):
        assert "crds/finetuneruns.yaml" in place
        assert "crds/finetuneschedules.yaml" in place


def test_notes_name_the_next_steps() -> None:
    done = helm(
        *("install", "tuner", str(CHART), "--namespace", "ops", "--dry-run=client"),
        *("--set-json", 'watch.namespaces=["docs-team"]'),
    )

    assert done.returncode == 0, done.stderr
    notes = done.stdout.split("NOTES:")[1]
    assert "kubectl --namespace ops rollout status deployment/tuner-finetune-operator" in notes
    assert "kubectl --namespace docs-team apply -f finetunerun.yaml" in notes
    assert "not pinned" in notes
    assert "name the store in stageNetworkPolicy.egress" in notes
