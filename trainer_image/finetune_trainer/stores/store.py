"""What a store can do. Keys are relative to the run's prefix, with slashes; nothing else knows about buckets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


class Store(Protocol):
    """A flat space of keys. Every method raises StoreRejected or StoreUnavailable, and nothing else."""

    def check(self) -> None:
        """Prove that the store exists and that an object can be written, read and deleted."""

    def uri(self, key: str) -> str:
        """How other programs name the key, such as `s3://bucket/prefix/key`."""

    def read(self, key: str) -> bytes | None:
        """The object, or None when there is none."""

    def write(self, key: str, content: bytes) -> None:
        """Create or replace a small object; whole or not at all."""

    def upload(self, key: str, path: Path) -> None:
        """Create or replace an object from a file, with its checksum verified by the store."""

    def download(self, key: str, path: Path) -> None:
        """Write the object into a file; whole or not at all. StoreRejected when there is none."""

    def list(self, prefix: str) -> list[str]:
        """Keys that begin with the prefix, sorted."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove keys; those that do not exist are no error."""
