from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from finetune_contract.artifacts import FileEntry
from finetune_trainer.stores.local_folder import LocalFolder
from finetune_trainer.training.shared_copy import ASK_SECONDS, RECORD_NAME, SILENT_SECONDS, SharedCopy

KEY = "base-models/a--b/c"
ENTRY = FileEntry(path="config.json", size=2, sha256="a" * 64)


class Clock:
    """Time that passes when somebody sleeps; `meanwhile` happens then."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.now = 0.0
        self.meanwhile = meanwhile

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(tmp_path)


def copy_of(store: LocalFolder, clock: Clock | None = None) -> SharedCopy:
    clock = clock or Clock()
    return SharedCopy(store, KEY, sleep=clock.sleep, clock=clock)


def finish(store: LocalFolder) -> None:
    store.write(f"{KEY}/manifest.json", b"{}")


def test_who_comes_first_does_not_wait(store: LocalFolder):
    clock = Clock()

    copy_of(store, clock).claim(lambda: None)

    assert clock.now == 0


def test_who_comes_second_waits_until_the_copy_is_done(store: LocalFolder):
    said: list[str] = []
    clock = Clock(lambda: finish(store))
    with copy_of(store).held():
        copy_of(store, clock).claim(lambda: said.append("waiting"))

    assert clock.now == ASK_SECONDS
    assert said == ["waiting"]


def test_who_gives_up_leaves_his_files_to_the_next_without_a_wait(store: LocalFolder):
    first = copy_of(store)
    with suppress(RuntimeError), first.held():
        store.write(f"{KEY}/config.json", b"{}")
        first.add(ENTRY)
        raise RuntimeError("gives up")
    clock = Clock()
    second = copy_of(store, clock)

    second.claim(lambda: None)

    assert clock.now == 0
    assert second.files_there() == {"config.json": ENTRY}


def test_who_is_silent_for_long_is_taken_over_with_his_files(
    store: LocalFolder, caplog: pytest.LogCaptureFixture
):
    store.write(f"{KEY}/config.json", b"{}")
    dead = copy_of(store)
    dead.add(ENTRY)
    clock = Clock()
    heir = copy_of(store, clock)

    heir.claim(lambda: None)

    assert clock.now == SILENT_SECONDS
    assert heir.files_there() == {"config.json": ENTRY}
    assert "is silent; it is taken over" in caplog.text


def test_who_still_beats_is_waited_for(store: LocalFolder):
    alive = copy_of(store)
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 5 * SILENT_SECONDS / ASK_SECONDS:
            finish(store)
        else:
            alive.add(ENTRY)

    alive.add(ENTRY)
    clock = Clock(beat)

    copy_of(store, clock).claim(lambda: None)

    assert clock.now == 5 * SILENT_SECONDS


def test_who_waits_can_be_told_to_stop(store: LocalFolder):
    def stop() -> None:
        raise InterruptedError

    with copy_of(store).held(), pytest.raises(InterruptedError):
        copy_of(store).claim(stop)


def test_a_file_that_is_gone_is_not_there(store: LocalFolder):
    copy = copy_of(store)
    copy.add(ENTRY)

    assert copy.files_there() == {}


def test_a_copy_that_is_done_leaves_no_record(store: LocalFolder):
    with copy_of(store).held():
        finish(store)

    assert store.list(f"{KEY}/") == [f"{KEY}/manifest.json"]


def test_a_record_that_cannot_be_read_holds_nobody_up(store: LocalFolder):
    store.write(f"{KEY}/{RECORD_NAME}", b"{")
    clock = Clock()

    copy_of(store, clock).claim(lambda: None)

    assert clock.now == 0
