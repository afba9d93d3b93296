"""`finetune-model-fetch`: bring the pinned model to this volume, whole and verified, or say exactly why not.

Runs as an init container, so its exit code and its last words are what an operator sees. Reads MODEL_URI,
MODEL_MANIFEST_SHA256 and MODEL_CACHE; must not know what the files mean.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from finetune_contract.artifacts import MANIFEST_NAME, FileEntry, Manifest
from finetune_contract.stage_protocol import FetchExitCode
from finetune_serving.errors import (
    PACKAGE_AGAIN,
    ChecksumMismatch,
    FetchError,
    ForbiddenFile,
    NotFound,
    VolumeFull,
)
from finetune_serving.last_words import leave_last_words
from finetune_serving.model_cache import ModelCache, is_digest, sync_folder, write_durably
from finetune_serving.stores import ModelStore, open_store

logger = logging.getLogger("finetune_serving.fetch")

ALLOWED_SUFFIXES = frozenset({".gguf", ".json", ".jinja", ".txt", ".md", ".safetensors"})
"""Files that can hold weights, settings and text, but no program."""
PART_BYTES = 8 * 1024 * 1024
CONNECTIONS = 4
FREE_SPACE_RESERVE_BYTES = 32 * 1024 * 1024
_MIB = 1024 * 1024


@dataclass(frozen=True)
class FetchResult:
    """What was done."""

    folder: Path
    downloaded_bytes: int
    cached: bool


class ProgressLog:
    """A line every few seconds: MiB done, MiB in all, MiB/s and time left."""

    def __init__(self, total_bytes: int, clock: Callable[[], float], every_seconds: float = 2.0) -> None:
        self._total = total_bytes
        self._clock = clock
        self._every = every_seconds
        self._started = self._last = clock()
        self._done = self._resumed = 0

    def resume(self, size: int) -> None:
        """Bytes that an earlier try has left."""
        self._resumed += size
        self.add(size)

    def begin_again(self, size: int, resumed: int) -> None:
        """A file of this size is thrown away, with what an earlier try has left of it."""
        self._done -= size
        self._resumed -= resumed

    def add(self, size: int) -> None:
        """Bytes that are now on the disk."""
        self._done += size
        now = self._clock()
        if now - self._last < self._every and self._done < self._total:
            return
        self._last = now
        seconds = max(now - self._started, 1e-6)
        rate = (self._done - self._resumed) / seconds
        left = (self._total - self._done) / rate if rate > 0 else 0.0
        logger.info(
            "downloading: %.1f of %.1f MiB, %.1f MiB/s, eta_seconds=%.0f",
            self._done / _MIB, self._total / _MIB, rate / _MIB, left,
        )  # fmt: skip


def fetch_model(
    store: ModelStore,
    manifest_sha256: str,
    cache: ModelCache,
    clock: Callable[[], float] = time.monotonic,
) -> FetchResult:
    """Make sure that the model lies in the cache and that `current` leads to it.

    Raises:
        FetchError: nothing half-done will ever be taken for whole; a later try resumes.
    """
    if not is_digest(manifest_sha256):
        raise ChecksumMismatch(
            f"MODEL_MANIFEST_SHA256 is {manifest_sha256!r}; expected the 64 hex digits of the manifest's sha256"
        )
    folder = cache.folder(manifest_sha256)
    try:
        if _take_up(cache, manifest_sha256):
            return FetchResult(folder, 0, cached=True)
        cache.root.mkdir(parents=True, exist_ok=True)
        with cache.writing(on_wait=lambda: logger.info("waiting for another download into %s", cache.root)):
            if _take_up(cache, manifest_sha256):
                return FetchResult(folder, 0, cached=True)
            downloaded = _download(store, manifest_sha256, cache, clock)
            cache.mark_whole(manifest_sha256)
            cache.point_to(manifest_sha256)
    except OSError as error:
        raise VolumeFull(
            f"{cache.root}: {error.strerror or error}; give the volume more room, or make it"
            f" writable for uid {os.getuid()}"
        ) from error
    return FetchResult(folder, downloaded, cached=False)


def _take_up(cache: ModelCache, manifest_sha256: str) -> bool:
    """Point to the model if it is there whole; another pod may be deleting it at this moment."""
    with cache.using(manifest_sha256) as whole:
        if whole:
            cache.point_to(manifest_sha256)
        return whole


def _download(store: ModelStore, manifest_sha256: str, cache: ModelCache, clock: Callable[[], float]) -> int:
    folder = cache.folder(manifest_sha256)
    content = store.read_small(MANIFEST_NAME)
    entries = serving_files(content, manifest_sha256, store.describe(MANIFEST_NAME))
    folder.mkdir(parents=True, exist_ok=True)
    missing = [entry for entry in entries if not _is_there(folder / entry.path, entry)]
    have = sum(_size(_partial(folder / entry.path)) for entry in missing)
    need = sum(entry.size for entry in missing) - have
    for name in cache.make_room(
        manifest_sha256, lambda: need + FREE_SPACE_RESERVE_BYTES <= shutil.disk_usage(folder).free
    ):
        logger.info("deleted to make room, nothing uses it: folder=%s", name)
    free = shutil.disk_usage(folder).free
    if need + FREE_SPACE_RESERVE_BYTES > free:
        raise VolumeFull(
            f"{folder}: {store.describe('')} needs {need / _MIB:.1f} MiB and {FREE_SPACE_RESERVE_BYTES // _MIB} MiB"
            f" of reserve, {free / _MIB:.1f} MiB are free; raise the sizeLimit of the volume"
        )
    progress = ProgressLog(sum(entry.size for entry in missing), clock)
    for entry in missing:
        _fetch_file(store, entry, folder / entry.path, progress)
    write_durably(folder / MANIFEST_NAME, content)
    return need


def serving_files(content: bytes, manifest_sha256: str, place: str) -> list[FileEntry]:
    """The files that a model server needs, from a manifest whose bytes are the pinned ones.

    Raises:
        ChecksumMismatch: they are not.
        ForbiddenFile: a file has a suffix or a path that is not accepted.
        NotFound: there is nothing to serve.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != manifest_sha256:
        raise ChecksumMismatch(
            f"{place}: expected sha256 {manifest_sha256} as pinned by MODEL_MANIFEST_SHA256, found {found};"
            " the model was replaced after it was approved: roll out the new one by its own digest"
        )
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ForbiddenFile(
            f"{place}: not a manifest that this version reads ({error.error_count()} errors, first:"
            f" {error.errors()[0]['msg']}); use the serving image of the release that made the model"
        ) from error
    entries = [entry for entry in manifest.files if entry.serving]
    for entry in entries:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.path or path.parts[0].startswith("."):
            raise ForbiddenFile(
                f"{place}: path {entry.path!r} leads outside the model's folder; it is not fetched"
            )
        if path.suffix not in ALLOWED_SUFFIXES:
            raise ForbiddenFile(
                f"{place}: file {entry.path!r} has a suffix that is not served;"
                f" allowed: {' '.join(sorted(ALLOWED_SUFFIXES))}"
            )
    if not entries:
        raise NotFound(f"{place}: no file is marked `serving`; package the run with a GGUF file")
    return entries


def _fetch_file(store: ModelStore, entry: FileEntry, target: Path, progress: ProgressLog) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    if _size(partial) > entry.size:
        partial.unlink()
    resumed = _size(partial)
    found = _bring(store, entry, partial, progress)
    if found != entry.sha256 and resumed:
        logger.warning(
            "what an earlier try has left is damaged, from the start once more: file=%s", entry.path
        )
        partial.unlink()
        progress.begin_again(entry.size, resumed)
        found = _bring(store, entry, partial, progress)
    if found != entry.sha256:
        partial.unlink()
        raise ChecksumMismatch(
            f"{store.describe(entry.path)}: expected sha256 {entry.sha256} as in the manifest, found"
            f" {found}; the file was thrown away. If this repeats, {PACKAGE_AGAIN}"
        )
    partial.replace(target)
    sync_folder(target.parent)


def _bring(store: ModelStore, entry: FileEntry, partial: Path, progress: ProgressLog) -> str:
    """Go on where the partial file ends; the sha256 of the whole file."""
    resumed = _size(partial)
    digest = hashlib.sha256()
    with partial.open("r+b" if resumed else "w+b") as file:
        while block := file.read(_MIB):
            digest.update(block)
        if resumed:
            logger.info("resuming: file=%s at %.1f MiB", entry.path, resumed / _MIB)
            progress.resume(resumed)
        for block in _blocks(store, entry, resumed):
            digest.update(block)
            file.write(block)
            progress.add(len(block))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _blocks(store: ModelStore, entry: FileEntry, start: int) -> Iterator[bytes]:
    """The file from `start`, in order; a few ranges are under way at any time."""
    ranges = iter(range(start, entry.size, PART_BYTES))

    def ask(pool: ThreadPoolExecutor) -> Future[bytes] | None:
        offset = next(ranges, None)
        if offset is None:
            return None
        return pool.submit(
            store.read_range, entry.path, offset, min(PART_BYTES, entry.size - offset), entry.size
        )

    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="fetch") as pool:
        under_way = deque(future for _ in range(CONNECTIONS) if (future := ask(pool)) is not None)
        try:
            while under_way:
                block = under_way.popleft().result()
                if (future := ask(pool)) is not None:
                    under_way.append(future)
                yield block
        finally:
            for future in under_way:
                future.cancel()


def _is_there(path: Path, entry: FileEntry) -> bool:
    """A renamed file was verified before its renaming; the size tells a file of somebody else."""
    return _size(path) == entry.size and path.is_file()


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def main() -> None:
    """Console script. Exit codes: finetune_contract.stage_protocol.FetchExitCode."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    # The first process of a container ignores SIGTERM unless it says otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    uri = os.environ.get("MODEL_URI", "").strip()
    if not uri:
        logger.info("MODEL_URI is empty: no model was rolled out yet, nothing to fetch")
        sys.exit(FetchExitCode.OK)
    started = time.monotonic()
    try:
        result = fetch_model(
            open_store(uri),
            os.environ.get("MODEL_MANIFEST_SHA256", "").strip(),
            ModelCache(Path(os.environ.get("MODEL_CACHE", "").strip() or "/models")),
        )
    except FetchError as error:
        message = f"{error.exit_code.name}: {error}"
        logger.error("%s", message)
        leave_last_words(message)
        sys.exit(error.exit_code)
    logger.info(
        "model ready: folder=%s cached=%s downloaded_mib=%.1f seconds=%.1f",
        result.folder, result.cached, result.downloaded_bytes / _MIB, time.monotonic() - started,
    )  # fmt: skip
    sys.exit(FetchExitCode.OK)
