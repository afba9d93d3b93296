import fcntl
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from devcluster import go_programs
from devcluster.errors import DevclusterError
from devcluster.go_programs import (
    BuildProgress,
    Go,
    Programs,
    parse_version,
    required_version,
    sources_digest,
)
from devcluster.progress import Progress

GO = Go(Path("/somewhere/go"), "go1.26.8")


@pytest.mark.parametrize(
    ("older", "newer"),
    [("go1.22.2", "go1.26.6"), ("1.26.6", "1.26.10"), ("1.26", "1.26.1"), ("go1.26.6", "go1.27rc1")],
)
def test_versions_compare_by_number(older: str, newer: str) -> None:
    assert parse_version(older) < parse_version(newer)


def test_the_needed_version_is_the_one_of_go_mod() -> None:
    assert required_version("module x\n\ngo 1.26.6\n\nrequire y v1.0.0\n") == (1, 26, 6)


def test_a_go_mod_without_a_version_is_an_error() -> None:
    with pytest.raises(DevclusterError, match="no `go` line"):
        required_version("module x\n")


def test_the_cache_is_left_when_a_source_the_compiler_or_a_name_changes(tmp_path: Path) -> None:
    source = tmp_path / "main.go"
    source.write_text("package main")
    programs = Programs("some", "some programs", tmp_path, ("./main",))
    first = sources_digest(GO, programs)

    assert sources_digest(GO, programs) == first
    assert sources_digest(Go(GO.program, "go1.27.0"), programs) != first
    assert sources_digest(GO, replace(programs, packages=("./other",))) != first
    source.rename(tmp_path / "other.go")
    assert sources_digest(GO, programs) != first
    (tmp_path / "other.go").write_text("package other")
    assert sources_digest(GO, programs) != first


def test_progress_tells_how_much_is_left_from_the_pace_so_far() -> None:
    assert str(BuildProgress("compile", 500, 2000, 200)) == "compile: 500 of 2000 packages, about 10 min left"
    assert str(BuildProgress("compile", 1900, 2000, 600)) == "compile: 1900 of 2000 packages, about 32 s left"
    assert str(BuildProgress("compile", 2000, 2000, 600)) == "compile: 2000 of 2000 packages"
    assert str(BuildProgress("modules fetched", 12)) == "modules fetched: 12"


def fake_go(folder: Path, version: str, script: str = "") -> Path:
    program = folder / "go"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = version ] && echo go version {version} linux/amd64 && exit 0\n{script}'
    )
    program.chmod(0o755)
    return program


def test_programs_that_are_built_are_not_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    program = fake_go(tmp_path, "go1.99.0", "echo a build was started >&2; exit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    built = go_programs.built_folder(Go(program, "go1.99.0"))
    built.mkdir(parents=True)

    assert go_programs.ensure(Progress(io.StringIO())) == built


def test_a_build_is_counted_while_it_runs_and_appears_only_when_it_is_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    script = """
    case $1 in
    list) echo 'go: downloading example.com/a v1.0.0' >&2; printf 'a\\nb\\nc\\n' ;;
    build) echo a >&2; echo b >&2; echo c >&2
           while [ "$1" != -o ]; do shift; done; touch "$2/node" ;;
    esac
    """
    fake_go(tmp_path, "go1.99.0", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(go_programs, "_interval_seconds", lambda: 0.0)
    said = io.StringIO()

    folder = go_programs.ensure(Progress(said))

    assert (folder / "node").exists()
    assert "modules fetched: 1" in said.getvalue()
    assert "compile: 3 of 3 packages" in said.getvalue()
    assert list(folder.parent.glob("*.unfinished")) == []


def test_a_build_that_fails_leaves_nothing_that_looks_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    program = fake_go(
        tmp_path, "go1.99.0", '[ "$1" = list ] || { echo "main.go:1: syntax error" >&2; exit 1; }\n'
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(DevclusterError, match=r"main\.go:1: syntax error"):
        go_programs.ensure(Progress(io.StringIO()))

    assert not go_programs.built_folder(Go(program, "go1.99.0")).exists()


def test_who_waits_for_another_build_is_shown_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "programs-x"
    (tmp_path / "programs-x.progress.json").write_text(
        json.dumps({"stage": "compile", "done": 5, "total": 10, "seconds": 60})
    )
    said = io.StringIO()
    with (tmp_path / "programs-x.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        # The other build ends while we look.
        monkeypatch.setattr("devcluster.go_programs.time.sleep", lambda _: fcntl.flock(held, fcntl.LOCK_UN))
        with go_programs._lock(folder, Progress(said)):
            pass

    assert "another process builds: compile: 5 of 10 packages, about 60 s left" in said.getvalue()
