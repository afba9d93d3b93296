"""Artifact folders in a store: files first, the manifest last. Present means whole, so every stage may run twice."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import ValidationError

from finetune_contract.artifacts import MANIFEST_NAME, ArtifactKind, FileEntry, Manifest
from finetune_trainer.errors import StoreRejected
from finetune_trainer.stores.store import Store

logger = logging.getLogger(__name__)

Fact = str | int | float | bool | list[str] | None


def sha256_of(path: Path) -> str:
    """Digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_folder(
    folder: Path, kind: ArtifactKind, facts: Mapping[str, Fact], serving: Collection[str] = ()
) -> Manifest:
    """The manifest of every file below `folder`; `serving` names the files that the model server needs."""
    files = [
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            size=path.stat().st_size,
            sha256=sha256_of(path),
            serving=path.relative_to(folder).as_posix() in serving,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_NAME
    ]
    return Manifest(kind=kind, files=files, facts=dict(facts))


def read_manifest(store: Store, key: str) -> Manifest | None:
    """The manifest of the artifact folder at `key`; None when the folder is not whole."""
    content = store.read(f"{key}/{MANIFEST_NAME}")
    if content is None:
        return None
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise StoreRejected(
            f"{store.uri(key)}/{MANIFEST_NAME}: is no manifest of this version; delete the folder to make it anew"
        ) from error


def publish_folder(
    store: Store,
    key: str,
    folder: Path,
    kind: ArtifactKind,
    facts: Mapping[str, Fact],
    serving: Collection[str] = (),
) -> Manifest:
    """Upload every file below `folder` to `key`, then the manifest."""
    manifest = describe_folder(folder, kind, facts, serving)
    for entry in manifest.files:
        store.upload(f"{key}/{entry.path}", folder / entry.path)
    store.write(f"{key}/{MANIFEST_NAME}", manifest.to_bytes())
    logger.info("stored %s: uri=%s bytes=%d", kind, store.uri(key), manifest.size_bytes)
    return manifest


def fetch_folder(store: Store, key: str, folder: Path, only_below: str | tuple[str, ...] = "") -> Manifest:
    """Download an artifact, or its files whose path begins with `only_below`, into `folder` and check every file.

    Files that are there and right stay.

    Raises:
        StoreRejected: there is no manifest, or a file is not what it says.
    """
    manifest = read_manifest(store, key)
    if manifest is None:
        raise StoreRejected(
            f"{store.uri(key)}: there is no manifest; the stage that makes it has not finished"
        )
    for entry in manifest.files:
        if not entry.path.startswith(only_below):
            continue
        path = folder / entry.path
        if path.is_file() and path.stat().st_size == entry.size and sha256_of(path) == entry.sha256:
            continue
        store.download(f"{key}/{entry.path}", path)
        if (found := sha256_of(path)) != entry.sha256:
            path.unlink()
            raise StoreRejected(
                f"{store.uri(key)}/{entry.path}: sha256 is {found}, the manifest says {entry.sha256}; "
                "the object was changed or damaged: delete the folder to make it anew"
            )
    return manifest
