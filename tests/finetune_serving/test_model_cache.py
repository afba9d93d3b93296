"""Which models leave a volume that several pods may share, and which never do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_serving.errors import VolumeFull
from finetune_serving.fetch import FREE_SPACE_RESERVE_BYTES, fetch_model
from finetune_serving.model_cache import UNUSED_SECONDS, ModelCache
from finetune_serving.stores import LocalFolder
from tests.finetune_serving.test_fetch import GOOD, publish

WANTED, LIVE, OLD, OLDER, NEW = (letter * 64 for letter in "abcde")
LONG_AGO = UNUSED_SECONDS + 60


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "cache")


def put(cache: ModelCache, digest: str, seconds_ago: float = LONG_AGO) -> None:
    """A whole model that was taken up so long ago."""
    cache.folder(digest).mkdir(parents=True)
    (cache.folder(digest) / "model.gguf").write_bytes(b"weights")
    cache.mark_whole(digest)
    used = time.time() - seconds_ago
    os.utime(cache.folder(digest) / ".whole", (used, used))


def there(cache: ModelCache) -> set[str]:
    return {folder.name.removeprefix("sha256-") for folder in cache.root.glob("sha256-*")}


def test_nothing_is_deleted_while_there_is_room(cache: ModelCache) -> None:
    put(cache, OLD)

    assert list(cache.make_room(WANTED, lambda: True)) == []
    assert there(cache) == {OLD}


def test_what_was_used_longest_ago_goes_first_and_only_until_there_is_room(cache: ModelCache) -> None:
    put(cache, OLD, LONG_AGO)
    put(cache, OLDER, 2 * LONG_AGO)

    assert list(cache.make_room(WANTED, lambda: len(there(cache)) < 2)) == [f"sha256-{OLDER}"]
    assert there(cache) == {OLD}


def test_what_a_broken_download_left_goes_before_any_whole_model(cache: ModelCache) -> None:
    put(cache, OLD)
    cache.folder(NEW).mkdir()
    (cache.folder(NEW) / "model.gguf.partial").write_bytes(b"wei")

    assert list(cache.make_room(WANTED, lambda: len(there(cache)) < 2)) == [f"sha256-{NEW}"]


@pytest.mark.parametrize(
    ("digest", "seconds_ago", "prepare"),
    [
        (WANTED, LONG_AGO, lambda cache: None),
        (LIVE, LONG_AGO, lambda cache: cache.point_to(LIVE)),
        (NEW, UNUSED_SECONDS - 60, lambda cache: None),
    ],
    ids=["the wanted one", "the one that was fetched last", "one whose server may not have started"],
)
def test_a_model_that_is_needed_stays_however_full_the_volume_is(
    cache: ModelCache, digest: str, seconds_ago: float, prepare: Callable[[ModelCache], None]
) -> None:
    put(cache, digest, seconds_ago)
    prepare(cache)

    assert list(cache.make_room(WANTED, lambda: False)) == []
    assert cache.is_whole(digest)


def test_a_model_that_another_process_serves_stays_until_that_has_ended(cache: ModelCache) -> None:
    put(cache, OLD)
    holding = (
        "import sys; from pathlib import Path; from finetune_serving.model_cache import ModelCache\n"
        f"with ModelCache(Path(sys.argv[1])).using({OLD!r}) as whole:\n"
        "    print(whole, flush=True); sys.stdin.read()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", holding, str(cache.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "True\n"
    used = time.time() - LONG_AGO
    os.utime(cache.folder(OLD) / ".whole", (used, used))

    during = list(cache.make_room(WANTED, lambda: False))
    server.communicate()
    after = list(cache.make_room(WANTED, lambda: False))

    assert (during, after) == ([], [f"sha256-{OLD}"])


def test_using_a_model_counts_as_taking_it_up(cache: ModelCache) -> None:
    put(cache, OLD)

    with cache.using(OLD) as whole:
        assert whole
    with cache.using(NEW) as whole:
        assert not whole

    assert list(cache.make_room(WANTED, lambda: False)) == []


def test_an_error_while_a_model_is_used_is_not_taken_for_a_missing_model(cache: ModelCache) -> None:
    put(cache, OLD)

    with pytest.raises(FileNotFoundError, match="other"), cache.using(OLD):
        raise FileNotFoundError("other")


def test_a_link_that_leads_nowhere_and_a_folder_without_a_model_are_no_hindrance(cache: ModelCache) -> None:
    put(cache, OLD)
    cache.point_to(LIVE)
    (cache.root / "lost+found").mkdir()

    assert list(cache.make_room(WANTED, lambda: False)) == [f"sha256-{OLD}"]
    assert (cache.root / "lost+found").is_dir()


@pytest.mark.parametrize(("unused", "fits"), [(True, True), (False, False)])
def test_a_download_makes_room_for_itself_where_it_may(
    cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused: bool, fits: bool
) -> None:
    digest = publish(tmp_path / "published")
    put(cache, OLD, LONG_AGO if unused else 0)
    usage = namedtuple("usage", "total used free")

    def free(_: Path) -> usage:
        room = 0 if OLD in there(cache) else GOOD.size_bytes + FREE_SPACE_RESERVE_BYTES
        return usage(room, 0, room)

    monkeypatch.setattr("finetune_serving.fetch.shutil.disk_usage", free)

    if not fits:
        with pytest.raises(VolumeFull, match="raise the sizeLimit"):
            fetch_model(LocalFolder(tmp_path / "published"), digest, cache)
        return
    fetch_model(LocalFolder(tmp_path / "published"), digest, cache)

    assert there(cache) == {digest}
