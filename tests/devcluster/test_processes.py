import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devcluster.errors import DevclusterError, PartDied
from devcluster.paths import Instance
from devcluster.processes import Processes, owned_processes, read_record, record_of, write_record


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(Instance("unit", tmp_path))
    yield started
    started.stop("part")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return Instance("unit", tmp_path).state


def test_a_program_runs_until_it_is_stopped_and_may_be_stopped_twice(
    processes: Processes, state: Path
) -> None:
    processes.start("part", ["sleep", "600"])
    assert processes.is_running("part")
    assert len(owned_processes(state)) == 1

    processes.stop("part")
    processes.stop("part")

    assert not processes.is_running("part")
    assert owned_processes(state) == []


def test_a_program_ends_together_with_its_workers(processes: Processes, state: Path) -> None:
    processes.start("part", ["sh", "-c", "sleep 600 & sleep 600 & echo started; wait"])
    processes.wait_until("part", lambda: "started" in processes.tail("part"), "it said so")
    assert len(owned_processes(state)) == 3

    processes.stop("part")

    assert owned_processes(state) == []


def test_a_program_that_ignores_a_polite_request_is_made_to_end(processes: Processes, state: Path) -> None:
    processes.start("part", ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 600; done"])
    processes.wait_until("part", lambda: "deaf" in processes.tail("part"), "it said so")

    processes.stop("part", timeout_seconds=0)

    assert owned_processes(state) == []


def test_a_program_that_dies_early_is_reported_with_its_last_words(processes: Processes) -> None:
    processes.start("part", ["sh", "-c", "echo the port is taken >&2; exit 1"])

    with pytest.raises(PartDied, match="the port is taken"):
        processes.wait_until("part", lambda: False, "it answered")


def test_a_program_that_never_answers_is_given_up(processes: Processes) -> None:
    processes.start("part", ["sleep", "600"])

    with pytest.raises(DevclusterError, match="it answered did not happen"):
        processes.wait_until("part", lambda: False, "it answered", timeout_seconds=0)


def test_a_program_does_not_inherit_the_callers_secrets(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    processes.start("part", ["sh", "-c", "env; echo that is all; sleep 600"], env={"GIVEN": "yes"})
    processes.wait_until("part", lambda: "that is all" in processes.log("part").read_text(), "it said so")

    told = processes.log("part").read_text()

    assert "GIVEN=yes" in told
    assert "SOME_TOKEN" not in told


def test_a_reused_process_id_is_not_mistaken_for_ours(tmp_path: Path) -> None:
    record = record_of(os.getpid())
    path = tmp_path / "part.json"
    write_record(path, record)
    assert read_record(path) == record
    assert record.is_alive()

    assert not replace(record, start_ticks=record.start_ticks - 1).is_alive()
    assert not replace(record, boot_id="an earlier boot").is_alive()


def test_a_program_that_is_not_installed_is_named(processes: Processes) -> None:
    with pytest.raises(DevclusterError, match="`no-such-program` is not installed"):
        processes.start("part", ["no-such-program"])


def test_a_process_that_has_ended_but_was_not_collected_does_not_count_as_alive() -> None:
    process = subprocess.Popen(["sleep", "600"])
    record = record_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead now, and still in the process table

    assert not record.is_alive()
    process.wait()
