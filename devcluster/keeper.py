"""The first process of an instance's namespaces: makes its private mounts, then only waits to be killed.

It is started by namespaces.py under `unshare`, and knows nothing but the instance's state folder. Every program of the
instance lives in its process namespace, so that the kernel ends all of them, and drops all mounts, when it is killed.
Python rather than the pause program: WordPress and S3 can start while the Go programs are still being compiled.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

HIDDEN_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""The kubelet sets these for the whole machine. Inside, each is a file of ours that already holds what it wants."""

KEPT_FOLDERS = ("kubelet", "containerd", "cni")
"""Folders of /var/lib that the node's programs expect; theirs lie in the state folder."""


def main(state: Path) -> None:
    """Never returns."""
    node = state / "node"
    _mount("--make-rshared", "/")
    _mount("-t", "tmpfs", "-o", "mode=755", "node-run", "/run")
    _overlay("/var/lib", node / "var-lib")
    for name in KEPT_FOLDERS:
        kept = node / name
        kept.mkdir(parents=True, exist_ok=True)
        Path("/var/lib", name).mkdir(exist_ok=True)
        _mount("--bind", str(kept), f"/var/lib/{name}")
    pod_logs = node / "log"
    pod_logs.mkdir(parents=True, exist_ok=True)
    _mount("--bind", str(pod_logs), "/var/log")
    for name, value in HIDDEN_SYSCTLS.items():
        stand_in = node / "sysctls" / name.replace("/", ".")
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text(value + "\n")
        _mount("--bind", str(stand_in), f"/proc/sys/{name}")

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans come to process 1; the kernel then reaps them
    (state / "run" / "keeper.ready").touch()
    while True:
        signal.pause()


def _overlay(folder: str, kept: Path) -> None:
    """Lets the mount points below be made without a trace in the host's folder."""
    upper, work = kept / "upper", kept / "work"
    upper.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    _mount(
        "-t", "overlay", "-o", f"lowerdir={folder},upperdir={upper},workdir={work}", "node-var-lib", folder
    )


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
