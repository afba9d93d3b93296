"""Starts, finds and ends an instance's long-running programs. Knows no part, only names and command lines.

A record file per program holds the process id together with its start time and the boot it belongs to: a number that
the kernel has given to another process meanwhile is never mistaken for ours.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from devcluster.commands import last_lines
from devcluster.errors import DevclusterError, PartDied
from devcluster.paths import Instance

OWNER_VARIABLE = "DEVCLUSTER_STATE"
"""Every program we start carries its instance's state folder in this variable, so that none can be lost."""

_POLL_SECONDS = 0.05
_KILLED_SECONDS = 10.0
"""That long the kernel may take to end what it was told to kill."""


@dataclass(frozen=True)
class ProcessRecord:
    """Which process a program is: its id alone could have been reused."""

    pid: int
    start_ticks: int
    boot_id: str

    def is_alive(self) -> bool:
        return self.boot_id == _boot_id() and _start_ticks(self.pid) == self.start_ticks


def spawn(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> int:
    """Starts a program that outlives us, in a session of its own, its output at the end of a log; returns its id.

    Raises:
        DevclusterError: the program is not installed.
    """
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        # Python itself ignores these two signals; a program expects to start without that.
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]
        return os.posix_spawnp(
            argv[0], list(argv), env, file_actions=actions, setsid=True, setsigdef=defaults
        )
    except FileNotFoundError as error:
        raise DevclusterError(f"`{argv[0]}` is not installed or not in PATH") from error


def record_of(pid: int) -> ProcessRecord:
    """The record of a process; of one that has ended already, a record that is not alive."""
    return ProcessRecord(pid, _start_ticks(pid) or 0, _boot_id())


def read_record(path: Path) -> ProcessRecord | None:
    """The record that was written to a file, or None when there is none."""
    try:
        return ProcessRecord(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def write_record(path: Path, record: ProcessRecord) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(record)) + "\n")


class Processes:
    """The programs of one instance.

    Args:
        inside: the process whose namespaces the programs share; None runs them on the host itself.
    """

    def __init__(self, instance: Instance, inside: ProcessRecord | None = None) -> None:
        self._instance = instance
        self._inside = inside

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        """Starts a program in the background, its output in the instance's logs folder.

        Each program leads a process group of its own, so that it ends together with its workers.
        """
        self._instance.logs.mkdir(parents=True, exist_ok=True)
        pid = spawn(
            [*self.entering(), *_as_user(user), *(str(part) for part in argv)],
            env={**_inherited(), **(env or {}), OWNER_VARIABLE: str(self._instance.state)},
            log=self.log(name),
        )
        write_record(self._record(name), record_of(pid))

    def entering(self) -> list[str]:
        """The words to put before a command that shall run where the programs run."""
        if self._inside is None:
            return []
        return ["nsenter", "--target", str(self._inside.pid), "--net", "--mount", "--pid", "--"]

    def is_running(self, name: str) -> bool:
        record = read_record(self._record(name))
        return record is not None and record.is_alive()

    def running_pid(self, name: str) -> int | None:
        record = read_record(self._record(name))
        return record.pid if record is not None and record.is_alive() else None

    def stop(self, name: str, *, timeout_seconds: float = 10) -> None:
        """Asks the program to end, and makes it end when it does not. Does nothing when it does not run."""
        record = read_record(self._record(name))
        if record is not None and record.is_alive():
            _signal_group(record.pid, signal.SIGTERM)
            if not _group_ends(record.pid, timeout_seconds):
                _signal_group(record.pid, signal.SIGKILL)
                _group_ends(record.pid, _KILLED_SECONDS)
        self._record(name).unlink(missing_ok=True)

    def wait_until(
        self, name: str, answers: Callable[[], bool], what: str, *, timeout_seconds: float = 60
    ) -> None:
        """Returns when `answers` says so.

        Raises:
            PartDied: the program ended first.
            DevclusterError: it still does not answer after `timeout_seconds`.
        """
        deadline = time.monotonic() + timeout_seconds
        while not answers():
            if not self.is_running(name):
                raise PartDied(f"{name} ended before {what}; {self.log(name)} ends with:\n{self.tail(name)}")
            if time.monotonic() > deadline:
                raise DevclusterError(
                    f"{name}: {what} did not happen in {timeout_seconds:.0f} s; {self.log(name)} ends with:\n"
                    f"{self.tail(name)}"
                )
            time.sleep(_POLL_SECONDS)

    def log(self, name: str) -> Path:
        return self._instance.logs / f"{name}.log"

    def tail(self, name: str) -> str:
        try:
            return last_lines(self.log(name).read_text(errors="replace")[-20_000:])
        except FileNotFoundError:
            return "    (no log)"

    def _record(self, name: str) -> Path:
        return self._instance.run / f"{name}.json"


def owned_processes(state: Path) -> list[int]:
    """Every process on this machine that was started for the instance with this state folder."""
    mark = f"{OWNER_VARIABLE}={state}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0") and _start_ticks(int(folder.name)):
                    found.append(int(folder.name))
            except OSError:
                continue
    return sorted(found)


def _inherited() -> dict[str, str]:
    """Programs start from a small, known environment, not from the caller's."""
    kept = ("HOME", "LANG", "TZ", "GODEBUG")
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} | {
        name: os.environ[name] for name in kept if name in os.environ
    }


def _as_user(user: str | None) -> list[str]:
    if user is None:
        return []
    group = pwd.getpwnam(user).pw_gid
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", "--"]


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it has ended, reaped or not."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])


def _signal_group(leader: int, number: signal.Signals) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return


def _group_ends(leader: int, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while _group_members(leader):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _group_members(leader: int) -> list[int]:
    """Processes of the group that still run; ended ones that nobody has collected do not count."""
    members = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == leader and fields[0] not in "ZX":
                members.append(int(folder.name))
    return members
