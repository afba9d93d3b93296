"""The namespaces, the wire and the cgroup that an instance lives in. Knows no program that runs in them.

One keeper process holds a network, a mount and a process namespace. Routes, filters, mounts and processes of the
instance are all inside and end with the keeper; only the cgroup folders have to be removed by hand.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from devcluster.commands import last_lines, run
from devcluster.errors import CommandFailed, DevclusterError
from devcluster.paths import REPOSITORY, Instance
from devcluster.processes import (
    OWNER_VARIABLE,
    ProcessRecord,
    owned_processes,
    read_record,
    record_of,
    spawn,
    write_record,
)

CGROUP_ROOT = Path("/sys/fs/cgroup")
_READY_SECONDS = 15.0
_UNSHARE = (
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--mount-proc",
    "--propagation=private",
    "--fork",
    "--kill-child",
)


def running_keeper(instance: Instance) -> ProcessRecord | None:
    """The keeper, when the instance's namespaces are there."""
    record = read_record(_keeper_record(instance))
    return record if record is not None and record.is_alive() else None


def open_namespaces(instance: Instance) -> ProcessRecord:
    """Makes the namespaces, the wire and the cgroup, or finds them.

    Raises:
        DevclusterError: not root, or another clone runs an instance of this name.
    """
    keeper = running_keeper(instance)
    if keeper is not None:
        return keeper
    if os.geteuid() != 0:
        raise DevclusterError(
            "a node needs root for its namespaces: run this command as root (`sudo -E ...`)"
        )
    if _link_exists(instance.link):
        _refuse_foreign_link(instance)
    instance.run.mkdir(parents=True, exist_ok=True)
    instance.logs.mkdir(parents=True, exist_ok=True)
    keeper = _start_keeper(instance)
    try:
        _connect(instance, keeper)
        _make_cgroups(instance.cgroup)
    except CommandFailed:
        close_namespaces(instance)
        raise
    return keeper


def close_namespaces(instance: Instance) -> None:
    """Kills the keeper, which ends every process inside, then removes what outlives it. May be called twice."""
    keeper = running_keeper(instance)
    if keeper is not None:
        os.kill(keeper.pid, signal.SIGKILL)
        _wait(lambda: not Path(f"/proc/{keeper.pid}").exists() or not keeper.is_alive(), 20)
    if _link_exists(instance.link) and not _foreign_owner(instance):
        try:
            run(["ip", "link", "delete", instance.link])
        except CommandFailed:  # the kernel removes the wire a moment after the last process of the namespace
            _wait(lambda: not _link_exists(instance.link), 5)
    _wait(lambda: _remove_cgroups(instance.cgroup), 10)
    _keeper_record(instance).unlink(missing_ok=True)
    (instance.run / "keeper.ready").unlink(missing_ok=True)


def leftovers(instance: Instance) -> list[str]:
    """What of the instance is still on this machine besides its state folder; empty after a complete `down`."""
    found = [f"process {pid}" for pid in owned_processes(instance.state)]
    if running_keeper(instance) is not None:
        found.append("its namespaces")
    if _link_exists(instance.link) and not _foreign_owner(instance):
        found.append(f"network link {instance.link}")
    found += [f"cgroup {folder}" for folder in cgroup_folders(instance.cgroup) if folder.exists()]
    state = str(instance.state)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted_on = line.split()[4]
        if mounted_on.startswith(state):
            found.append(f"mount on {mounted_on}")
    return found


def cgroup_folders(name: str, root: Path = CGROUP_ROOT) -> list[Path]:
    """The instance's folder in each cgroup tree of this machine: one on version 2, one a controller on version 1.

    A machine with version 1 may have a tree of version 2 beside it, `unified`, which runc uses as well.
    """
    if (root / "cgroup.controllers").exists():
        return [root / name]
    return [tree / name for tree in sorted(root.iterdir()) if tree.is_dir() and not tree.is_symlink()]


def _start_keeper(instance: Instance) -> ProcessRecord:
    ready = instance.run / "keeper.ready"
    ready.unlink(missing_ok=True)
    log = instance.logs / "keeper.log"
    log.unlink(missing_ok=True)
    outer = record_of(
        spawn(
            [*_UNSHARE, sys.executable, "-m", "devcluster.keeper", str(instance.state)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), OWNER_VARIABLE: str(instance.state)},
            log=log,
        )
    )
    _wait(lambda: ready.exists() or not outer.is_alive(), _READY_SECONDS)
    if not ready.exists():
        if outer.is_alive():
            os.kill(outer.pid, signal.SIGKILL)
        raise DevclusterError(
            f"the node's namespaces could not be made; {log} says:\n{last_lines(log.read_text())}"
        )
    keeper = record_of(_only_child(outer.pid))
    write_record(_keeper_record(instance), keeper)
    return keeper


def _connect(instance: Instance, keeper: ProcessRecord) -> None:
    """A wire between the host and the node; the node reaches everything else through the host."""
    inside = ["nsenter", "--target", str(keeper.pid), "--net", "--mount", "--pid", "--"]
    pid = str(keeper.pid)
    run(["ip", "link", "add", instance.link, "type", "veth", "peer", "name", "eth0", "netns", pid])
    run(["ip", "address", "add", f"{instance.host_ip}/24", "dev", instance.link])
    run(["ip", "link", "set", instance.link, "up"])
    run([*inside, "ip", "address", "add", f"{instance.node_ip}/24", "dev", "eth0"])
    run([*inside, "ip", "link", "set", "eth0", "up"])
    run([*inside, "ip", "link", "set", "lo", "up"])
    run([*inside, "ip", "route", "add", "default", "via", instance.host_ip])
    run([*inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])


def _make_cgroups(name: str) -> None:
    for folder in cgroup_folders(name):
        folder.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # Version 1 leaves a new cpuset empty, and nothing can run in an empty one. Version 2 inherits.
            ours, parents = folder / setting, folder.parent / setting
            if parents.exists() and ours.exists() and not (CGROUP_ROOT / "cgroup.controllers").exists():
                ours.write_text(parents.read_text())


def _remove_cgroups(name: str) -> bool:
    """Whether they are gone; a folder cannot be removed before the last process in it has ended."""
    for top in cgroup_folders(name):
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue
    return not any(top.exists() for top in cgroup_folders(name))


def _refuse_foreign_link(instance: Instance) -> None:
    """A link without a keeper of ours: a broken start of ours is cleared, another clone's node is left alone."""
    owner = _foreign_owner(instance)
    if owner:
        raise DevclusterError(
            f"another clone runs an instance named {instance.name!r} (its state: {owner}): end it there with "
            f"`python -m devcluster down --name {instance.name}`, or choose another --name here"
        )
    run(["ip", "link", "delete", instance.link])


def _foreign_owner(instance: Instance) -> str | None:
    """The state folder of another clone whose keeper runs under the same instance name."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"devcluster.keeper" in words:
            state = Path(words[words.index(b"devcluster.keeper") + 1].decode())
            if state.name == instance.name and state != instance.state:
                return str(state)
    return None


def _only_child(pid: int) -> int:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == pid:
                return int(folder.name)
    raise DevclusterError(f"process {pid} has no child: the keeper has already ended")


def _link_exists(link: str) -> bool:
    return Path("/sys/class/net", link).exists()


def _keeper_record(instance: Instance) -> Path:
    return instance.run / "keeper.json"


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
