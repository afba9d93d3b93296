"""Where a model lies on the volume that the download and the model server share; must not know where it comes from.

Folders are named by content (`sha256-<manifest digest>`), and a marker file is written last: marker present means
whole. `current` points to the model that was fetched last.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_MARKER = ".whole"


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
    def writing(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """One writer at a time on a shared volume; `on_wait` is called when another one is at work."""
        with (self.root / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def digest_of(model_id: str) -> str:
    """The manifest digest in a MODEL_ID such as `sha256:0123...`.

    Raises:
        ValueError: it has another form.
    """
    digest = model_id.removeprefix("sha256:")
    if not _DIGEST.match(digest):
        raise ValueError(
            f"MODEL_ID is {model_id!r}; expected `sha256:` and the 64 hex digits of the manifest's sha256"
        )
    return digest


def is_digest(text: str) -> bool:
    """Whether this is a sha256 in hex."""
    return _DIGEST.match(text) is not None


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
