"""`down` leaves nothing behind. On an instance of its own, so that the other tests keep theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devcluster import s3
from devcluster.lifecycle import leftovers
from devcluster.namespaces import cgroup_folders
from devcluster.paths import Instance
from devcluster.processes import owned_processes

pytestmark = pytest.mark.on_cluster

ROOT = Path(__file__).parents[2]
GONE = Instance("gone")


def devcluster(*arguments: str) -> None:
    command = [sys.executable, "-m", "devcluster", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def mounted() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def test_a_node_and_its_neighbours_end_without_a_trace() -> None:
    mounts, var_lib = mounted(), sorted(Path("/var/lib").iterdir())
    devcluster("up", "--name", GONE.name, "node", "s3", "wordpress")
    try:
        assert len(owned_processes(GONE.state)) > 10
        assert leftovers(GONE)
    finally:
        devcluster("down", "--name", GONE.name, "--wipe")

    assert leftovers(GONE) == []
    assert owned_processes(GONE.state) == []
    assert not Path("/sys/class/net", GONE.link).exists()
    assert [folder for folder in cgroup_folders(GONE.cgroup) if folder.exists()] == []
    assert not GONE.state.exists()
    assert mounted() == mounts
    assert sorted(Path("/var/lib").iterdir()) == var_lib
    assert not any(path.exists() for path in s3.sockets(GONE))
