import io
from pathlib import Path

import pytest

from devcluster import debian
from devcluster.errors import CommandFailed, DevclusterError
from devcluster.progress import Progress


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the package `there`, whose apt-get notes what it is asked."""

    def program(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)

    program("dpkg-query", 'for last; do :; done; [ "$last" = there ] && printf installed || exit 1\n')
    program("apt-get", f'echo "$@" >> {tmp_path}/asked; test -e {tmp_path}/works || exit 100\n')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr("devcluster.debian.os.geteuid", lambda: 0)
    return tmp_path


def test_packages_that_are_there_are_not_asked_for(machine: Path) -> None:
    debian.ensure(["there"], Progress(io.StringIO()), "node")

    assert not (machine / "asked").exists()


def test_only_missing_packages_are_installed(machine: Path) -> None:
    (machine / "works").touch()

    debian.ensure(["there", "missing"], Progress(io.StringIO()), "node")

    [asked] = (machine / "asked").read_text().splitlines()
    assert asked.endswith("install --yes --no-install-recommends missing")


def test_old_package_lists_are_fetched_before_giving_up(machine: Path) -> None:
    with pytest.raises(CommandFailed, match="apt-get"):
        debian.ensure(["missing"], Progress(io.StringIO()), "node")

    assert [line.split()[2] for line in (machine / "asked").read_text().splitlines()] == ["install", "update"]


def test_without_root_and_sudo_the_command_to_run_is_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devcluster.debian.os.geteuid", lambda: 1000)
    monkeypatch.setattr("devcluster.debian.shutil.which", lambda name: None if name == "sudo" else name)

    with pytest.raises(DevclusterError, match="as root: apt-get install missing"):
        debian.ensure(["missing"], Progress(io.StringIO()), "node")
