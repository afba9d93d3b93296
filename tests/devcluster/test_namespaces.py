from pathlib import Path

from devcluster.namespaces import cgroup_folders


def test_a_machine_with_cgroup_version_2_has_one_folder(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    (tmp_path / "system.slice").mkdir()

    assert cgroup_folders("devcluster-demo", tmp_path) == [tmp_path / "devcluster-demo"]


def test_version_1_has_a_folder_in_each_tree_and_follows_no_link_twice(tmp_path: Path) -> None:
    for tree in ("cpu,cpuacct", "memory", "systemd", "unified"):
        (tmp_path / tree).mkdir()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")

    found = [str(folder.relative_to(tmp_path)) for folder in cgroup_folders("x", tmp_path)]

    assert found == ["cpu,cpuacct/x", "memory/x", "systemd/x", "unified/x"]
