"""A full or read-only disk in words. Must not know what is written."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_trainer.errors import WorkspaceUnusable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_GIB = 2**30


@contextmanager
def workspace_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system says of a full or read-only disk into WorkspaceUnusable; the rest goes on."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or folder
        if error.errno in _FULL:
            raise WorkspaceUnusable(
                f"{where}: {error.strerror}; raise spec.resources.other.scratch, or on a laptop make room for the "
                "workspace: what is finished stays, and the next attempt goes on from there"
            ) from error
        if error.errno in _READ_ONLY:
            raise WorkspaceUnusable(
                f"{where}: {error.strerror}; mount the work folder writable, or on a laptop choose another --workspace"
            ) from error
        raise


def check_room(folder: Path, needed_bytes: int) -> None:
    """Before the work begins.

    Raises:
        WorkspaceUnusable: fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise WorkspaceUnusable(
            f"{folder}: packaging needs {needed_bytes / _GIB:.1f} GiB, {free / _GIB:.1f} GiB are free; "
            "raise spec.resources.other.scratch, or on a laptop make room for the workspace"
        )
