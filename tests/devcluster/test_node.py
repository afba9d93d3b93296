from pathlib import Path

import pytest

from devcluster import images, node
from devcluster.node import Node
from devcluster.paths import Instance
from devcluster.processes import Processes


@pytest.fixture
def a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(images, "base_runtime_spec", lambda programs: "{}")
    monkeypatch.setattr(node, "_cni_programs", lambda: "/usr/lib/cni")
    instance = Instance("unit", tmp_path)
    return Node(instance, Processes(instance), tmp_path / "programs")


def digest(of: Node) -> str:
    return node._digest(of, node._configuration_files(of))


def test_a_running_node_is_started_anew_only_when_programs_or_configuration_change(
    a_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = digest(a_node)

    assert digest(a_node) == first
    assert digest(Node(a_node.instance, a_node.processes, Path("/other/programs"))) != first
    monkeypatch.setattr(images, "base_runtime_spec", lambda programs: '{"mounts": []}')
    assert digest(a_node) != first


def test_nothing_of_the_configuration_lies_outside_the_instances_folder(a_node: Node) -> None:
    kubelet = node._configuration_files(a_node)["kubelet.yaml"]

    assert f"cgroupRoot: /{a_node.instance.cgroup}" in kubelet
    assert str(a_node.pki / "ca.crt") in kubelet
    assert a_node.instance.node_ip in a_node.server
