"""A folder as a store: the laptop's workspace."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from finetune_trainer.errors import ArtifactDamaged, StoreRejected


class LocalFolder:
    """Keys are paths below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.write(".write-check", b"ok")
            self.delete([".write-check"])
        except OSError as error:
            raise StoreRejected(
                f"workspace {self.root}: cannot be written ({error.strerror}); choose another with --workspace"
            ) from error

    def uri(self, key: str) -> str:
        return self._path(key).resolve().as_uri()

    def read(self, key: str) -> bytes | None:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, key: str, content: bytes) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(path)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def upload(self, key: str, path: Path) -> None:
        target = self._path(key)
        if target.resolve() == path.resolve():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target)
        shutil.copyfile(path, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)

    def download(self, key: str, path: Path) -> None:
        source = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        try:
            shutil.copyfile(source, partial)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ArtifactDamaged(
                f"{self.uri(key)}: there is no such file; run the stage that makes it"
            ) from error
        partial.replace(path)

    def list(self, prefix: str) -> list[str]:
        keys = (
            path.relative_to(self.root).as_posix()
            for path in self.root.rglob("*")
            if path.is_file() and not path.name.endswith(".partial")
        )
        return sorted(key for key in keys if key.startswith(prefix))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            path.unlink(missing_ok=True)
            if path.parent != self.root:
                with contextlib.suppress(OSError):  # it is gone, or not empty
                    path.parent.rmdir()

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise StoreRejected(f"key {key!r} leads out of the workspace {self.root}")
        return path


def _partial(path: Path) -> Path:
    """Where a file is written before it takes its place: two processes that write the same one do not meet there.

    What a process left there that was killed goes.
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        number = left.name.removeprefix(f"{path.name}.").removesuffix(".partial")
        if number.isdigit() and not _lives(int(number)):
            left.unlink(missing_ok=True)
    return path.with_name(f"{path.name}.{os.getpid()}.partial")


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
