from __future__ import annotations

from pathlib import Path

import pytest

from finetune_serving.cgroup import cpu_limit, memory_limit_bytes, usable_threads


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")


def test_the_tightest_limit_of_version_two_holds(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("0::/pod/container\n")
    write(
        tmp_path,
        pod__memory_dot_max="2000",
        pod__container__memory_dot_max="3000",
        pod__container__cpu_dot_max="150000 100000",
    )

    assert memory_limit_bytes(tmp_path, membership) == 2000
    assert cpu_limit(tmp_path, membership) == 1.5


def test_version_two_without_limits_is_no_limit(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("0::/\n")
    write(tmp_path, memory_dot_max="max", cpu_dot_max="max 100000")

    assert memory_limit_bytes(tmp_path, membership) is None
    assert cpu_limit(tmp_path, membership) is None


def test_version_one_is_read_at_its_own_mounts(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("5:memory:/pod\n4:cpu,cpuacct:/pod\n")
    (tmp_path / "memory" / "pod").mkdir(parents=True)
    (tmp_path / "cpu,cpuacct" / "pod").mkdir(parents=True)
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory" / "pod" / "memory.limit_in_bytes").write_text("4096\n")
    (tmp_path / "cpu,cpuacct" / "pod" / "cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu,cpuacct" / "pod" / "cpu.cfs_period_us").write_text("100000\n")

    assert memory_limit_bytes(tmp_path, membership) == 4096
    assert cpu_limit(tmp_path, membership) == 2.0


def test_a_machine_without_cgroups_has_no_limit(tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path, tmp_path / "none") is None
    assert cpu_limit(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize(
    ("limit", "processors", "threads"), [(None, 4, 4), (0.5, 4, 1), (1.9, 4, 1), (2.0, 4, 2), (16.0, 4, 4)]
)
def test_threads_are_whole_processors_that_may_run(
    limit: float | None, processors: int, threads: int
) -> None:
    assert usable_threads(limit, processors) == threads
