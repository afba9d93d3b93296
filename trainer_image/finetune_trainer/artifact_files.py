"""Artifact folders in a store: files first, the manifest last. Present means whole, so every stage may run twice."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from finetune_contract.artifacts import MANIFEST_NAME, ArtifactKind, FileEntry, Manifest
from finetune_trainer.errors import ArtifactDamaged
from finetune_trainer.stores.store import Store

logger = logging.getLogger(__name__)

UPLOADED_NAME = "uploaded.json"
"""What is whole so far of a folder that has no manifest yet."""

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
    found = read_manifest_and_digest(store, key)
    return found and found[0]


def read_manifest_and_digest(store: Store, key: str) -> tuple[Manifest, str] | None:
    """The same, and the sha256 of the stored bytes: also for a manifest of a release that wrote other fields."""
    content = store.read(f"{key}/{MANIFEST_NAME}")
    if content is None:
        return None
    try:
        return Manifest.model_validate_json(content), hashlib.sha256(content).hexdigest()
    except ValidationError as error:
        raise ArtifactDamaged(
            f"{store.uri(key)}/{MANIFEST_NAME}: is no manifest of this version; delete the folder to make it anew"
        ) from error


def delete_files(store: Store, keys: Sequence[str]) -> None:
    """Manifests go first: what is half removed is taken for nothing."""
    store.delete([key for key in keys if key.endswith(f"/{MANIFEST_NAME}")])
    store.delete([key for key in keys if not key.endswith(f"/{MANIFEST_NAME}")])


def publish_folder(
    store: Store,
    key: str,
    folder: Path,
    kind: ArtifactKind,
    facts: Mapping[str, Fact],
    serving: Collection[str] = (),
    resume: bool = False,
) -> Manifest:
    """Upload every file below `folder` to `key`, then the manifest.

    With `resume` a list beside them says which files are there, and an attempt after one that broke off sends the rest.
    """
    manifest = describe_folder(folder, kind, facts, serving)
    there = _uploaded(store, key) if resume else {}
    for entry in manifest.files:
        if there.get(entry.path) == entry.sha256:
            logger.info("is in the store already: uri=%s/%s", store.uri(key), entry.path)
            continue
        store.upload(f"{key}/{entry.path}", folder / entry.path)
        if resume:
            there[entry.path] = entry.sha256
            store.write(f"{key}/{UPLOADED_NAME}", json.dumps(there, indent=2, sort_keys=True).encode())
    store.write(f"{key}/{MANIFEST_NAME}", manifest.to_bytes())
    if resume:
        store.delete([f"{key}/{UPLOADED_NAME}"])
    logger.info("stored %s: uri=%s bytes=%d", kind, store.uri(key), manifest.size_bytes)
    return manifest


def _uploaded(store: Store, key: str) -> dict[str, str]:
    """What an attempt that broke off left whole in the store: sha256 by path."""
    content = store.read(f"{key}/{UPLOADED_NAME}")
    if content is None:
        return {}
    try:
        listed = json.loads(content)
    except ValueError:
        return {}
    if not isinstance(listed, dict):
        return {}
    keys = set(store.list(f"{key}/"))
    return {path: digest for path, digest in listed.items() if f"{key}/{path}" in keys}


def fetch_folder(store: Store, key: str, folder: Path, only_below: str | tuple[str, ...] = "") -> Manifest:
    """Download an artifact, or its files whose path begins with `only_below`, into `folder` and check every file.

    Files that are there and right stay.

    Raises:
        ArtifactDamaged: there is no manifest, or a file is missing or not what it says.
    """
    manifest = read_manifest(store, key)
    if manifest is None:
        raise ArtifactDamaged(
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
            raise ArtifactDamaged(
                f"{store.uri(key)}/{entry.path}: sha256 is {found}, the manifest says {entry.sha256}; "
                "the object was changed or damaged: delete the folder to make it anew"
            )
    return manifest
