"""Where a model lies on the volume that the download and the model server share; must not know where it comes from.

Folders are named by content (`sha256-<manifest digest>`), and a marker file is written last: marker present means
whole. `current` points to the model that was fetched last. Pods may share the volume: whoever uses a model holds its
marker locked, and its time says when it was last taken up.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MARKER = ".whole"
_MODEL_FOLDERS = "sha256-*"
UNUSED_SECONDS = 3600.0
"""A model that was taken up within this time is left alone: its server may not have started yet."""


class ModelCache:
    """The folder with one sub-folder a model."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, digest: str) -> Path:
        """Folder of the model whose manifest has this sha256."""
        return self.root / f"sha256-{digest}"

    def is_whole(self, digest: str) -> bool:
        """Whether the download was finished and verified."""
        return (self.folder(digest) / _MARKER).exists()

    def mark_whole(self, digest: str) -> None:
        """The last write of a download."""
        write_durably(self.folder(digest) / _MARKER, b"")

    def point_to(self, digest: str) -> None:
        """Let `current` lead to this model, in one step."""
        link, target = self.root / "current", self.folder(digest).name
        if link.is_symlink() and os.readlink(link) == target:
            return
        # every container's first process has the same number, and pods may share the volume
        fresh = self.root / f".current-{uuid4().hex}"
        fresh.symlink_to(target)
        try:
            fresh.replace(link)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise

    @contextmanager
    def using(self, digest: str) -> Iterator[bool]:
        """Keep a model from being deleted for as long as this lasts; False when it is not there whole."""
        try:
            marker = (self.folder(digest) / _MARKER).open("rb")
        except OSError:
            yield self.is_whole(digest)
            return
        with marker:
            with suppress(OSError):  # a file system without locks: then nothing is deleted either
                fcntl.flock(marker, fcntl.LOCK_SH)
            with suppress(OSError):  # mounted for reading only
                os.utime(marker.fileno())
            yield self.is_whole(digest)

    def make_room(self, wanted: str, is_enough: Callable[[], bool]) -> Iterator[str]:
        """Delete models that nothing uses, longest unused first, until there is room. Only while writing.

        Yields:
            Name of each folder that was deleted.
        """
        kept = {self.folder(wanted).name, self._pointed_to()}
        unused = [folder for folder in self.root.glob(_MODEL_FOLDERS) if folder.name not in kept]
        for folder in sorted(unused, key=_last_used):
            if is_enough():
                return
            if _delete_unused(folder):
                yield folder.name

    def _pointed_to(self) -> str:
        try:
            return os.readlink(self.root / "current")
        except OSError:
            return ""

    @contextmanager
    def writing(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """One writer at a time on a shared volume; `on_wait` is called when another one is at work."""
        with (self.root / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _last_used(folder: Path) -> float:
    """When it was taken up last; a download that was never finished comes before all others."""
    try:
        return (folder / _MARKER).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _delete_unused(folder: Path) -> bool:
    """Delete a model, its marker first: half of it is never taken for a whole one. False when it is used."""
    marker_path = folder / _MARKER
    if marker_path.exists():
        with marker_path.open("r+b") as marker:  # NFS locks a file alone only where it may be written
            try:
                fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            if time.time() - _last_used(folder) < UNUSED_SECONDS:
                return False
            marker_path.unlink()
            sync_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return True


def digest_of(model_id: str) -> str:
    """The manifest digest in a MODEL_ID such as `sha256:0123...`.

    Raises:
        ValueError: it has another form.
    """
    digest = model_id.removeprefix("sha256:")
    if not _DIGEST.fullmatch(digest):
        raise ValueError(
            f"MODEL_ID is {model_id!r}; expected `sha256:` and the 64 hex digits of the manifest's sha256"
        )
    return digest


def is_digest(text: str) -> bool:
    """Whether this is a sha256 in hex."""
    return _DIGEST.fullmatch(text) is not None


def write_durably(path: Path, content: bytes) -> None:
    """Write beside, flush to the disk, rename: the file is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
