"""A full or read-only disk in words. Must not know what is written."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_trainer.errors import WorkspaceUnusable

SCRATCH = "spec.resources.other.scratch"
"""Of the stages that hold no GPU."""
TRAIN_SCRATCH = "spec.resources.train.scratch"
"""Of training and evaluation."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_GIB = 2**30


@contextmanager
def workspace_errors(folder: Path, scratch: str = SCRATCH) -> Iterator[None]:
    """Turn what the operating system says of a full or read-only disk into WorkspaceUnusable; the rest goes on.

    Args:
        scratch: field of the spec that sizes the disk.
    """
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or folder
        if error.errno in _FULL:
            raise WorkspaceUnusable(
                f"{where}: {error.strerror}; raise {scratch}, or on a laptop make room for the "
                "workspace: what is finished stays, and the next attempt goes on from there"
            ) from error
        if error.errno in _READ_ONLY:
            raise WorkspaceUnusable(
                f"{where}: {error.strerror}; mount the work folder writable, or on a laptop choose another --workspace"
            ) from error
        raise


def check_room(folder: Path, needed_bytes: int, work: str = "packaging", scratch: str = SCRATCH) -> None:
    """Before the work begins.

    Raises:
        WorkspaceUnusable: fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise WorkspaceUnusable(
            f"{folder}: {work} needs {needed_bytes / _GIB:.1f} GiB, {free / _GIB:.1f} GiB are free; "
            f"raise {scratch}, or on a laptop make room for the workspace"
        )
