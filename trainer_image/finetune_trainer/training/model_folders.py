"""Base models that somebody put into a bucket, or into a folder of this machine. Must not know Hugging Face."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from finetune_contract.artifacts import MANIFEST_NAME, ArtifactKind, Manifest
from finetune_contract.run_spec import S3StoreSpec
from finetune_trainer.artifact_files import sha256_of
from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.stores.s3 import S3Store, s3_client, s3_errors
from finetune_trainer.stores.store import Store
from finetune_trainer.training.base_model_files import (
    FIELD,
    BaseModelFile,
    ResolvedBaseModel,
    check_is_safe,
    digest_of,
    files_of,
    is_wanted,
    licence_of,
)
from finetune_trainer.training.weight_files import INDEX, with_one_set_of_weights

logger = logging.getLogger(__name__)

CHECKSUMS = "SHA256SUMS"
"""What `sha256sum * > SHA256SUMS` writes beside a model."""
_CHECKSUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(\S.*)")


def in_bucket(uri: str, spec: S3StoreSpec) -> ResolvedBaseModel:
    """The model below an s3:// address, on the server of the run's store.

    Its files are held to the manifest.json that we write ourselves beside a model, or to SHA256SUMS; with neither,
    to their size and the server's own checksums.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    shelf = S3Store(s3_client(spec.endpoint, spec.region), bucket, prefix)
    start = len(shelf.prefix) + 1 if shelf.prefix else 0
    listed: list[BaseModelFile] = []
    with s3_errors(f"{FIELD}: {uri}"):
        pages = shelf.client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=f"{shelf.prefix}/" if shelf.prefix else ""
        )
        for page in pages:
            listed += [
                BaseModelFile(entry["Key"][start:], entry["Size"], entry["ETag"].strip('"'))
                for entry in page.get("Contents", [])
            ]
    names = [file.path for file in listed]
    check_is_safe(uri, names)
    manifest = _manifest_beside(shelf) if MANIFEST_NAME in names else None
    if manifest is not None:
        check_is_safe(f"{uri}{MANIFEST_NAME}", [entry.path for entry in manifest.files])
        files = _with_weights_once(uri, files_of(manifest), shelf)
        _check_are_there(uri, files, names)
        return ResolvedBaseModel(uri, manifest.sha256(), licence_of(manifest), files, shelf.download)
    wanted = tuple(file for file in sorted(listed, key=lambda file: file.path) if is_wanted(file.path))
    files = _with_weights_once(uri, wanted, shelf)
    if CHECKSUMS in names:
        files = _with_checksums(uri, files, (shelf.read(CHECKSUMS) or b"").decode("utf-8", "replace"))
    else:
        logger.warning(
            "base model without checksums; write %s beside it with sha256sum: uri=%s", CHECKSUMS, uri
        )
    return ResolvedBaseModel(uri, digest_of(files), "", files, shelf.download)


def on_this_machine(uri: str) -> ResolvedBaseModel:
    """The model in a file:// folder."""
    root = Path(unquote(urlsplit(uri).path))
    if not root.is_dir():
        raise BaseModelRejected(f"{FIELD}: {root} is no folder; correct the path (file:///absolute/path)")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    check_is_safe(str(root), names)
    wanted = with_one_set_of_weights(str(root), filter(is_wanted, names), (root / INDEX).read_bytes)
    files = []
    for name in sorted(wanted):
        checksum = sha256_of(root / name)
        files.append(BaseModelFile(name, (root / name).stat().st_size, checksum, checksum))

    def copy(name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)

    return ResolvedBaseModel(uri, digest_of(files), "", tuple(files), copy)


def _with_weights_once(uri: str, files: tuple[BaseModelFile, ...], shelf: Store) -> tuple[BaseModelFile, ...]:
    names = with_one_set_of_weights(uri, (file.path for file in files), lambda: shelf.read(INDEX))
    return tuple(file for file in files if file.path in names)


def _manifest_beside(shelf: Store) -> Manifest | None:
    """The manifest that we write ourselves beside a model, with the sha256 of every file; None for any other."""
    try:
        manifest = Manifest.model_validate_json(shelf.read(MANIFEST_NAME) or b"")
    except ValueError:
        return None
    return manifest if manifest.kind is ArtifactKind.BASE_MODEL else None


def _check_are_there(uri: str, files: tuple[BaseModelFile, ...], names: list[str]) -> None:
    missing = [file.path for file in files if file.path not in set(names)]
    if missing:
        raise BaseModelRejected(
            f"{FIELD}: {uri} holds no {missing[0]}, and its {MANIFEST_NAME} names it "
            f"({len(missing)} of {len(files)} missing); upload the whole model folder"
        )


def _with_checksums(uri: str, files: tuple[BaseModelFile, ...], text: str) -> tuple[BaseModelFile, ...]:
    sums = {
        match[2]: match[1] for line in text.splitlines() if (match := _CHECKSUM_LINE.fullmatch(line.strip()))
    }
    unnamed = [file.path for file in files if file.path not in sums]
    if unnamed:
        raise BaseModelRejected(
            f"{FIELD}: {uri}{CHECKSUMS} has no sha256 of {unnamed[0]} ({len(unnamed)} of {len(files)} files lack one); "
            f"write it anew: sha256sum * > {CHECKSUMS}"
        )
    return tuple(BaseModelFile(file.path, file.size, sums[file.path], sums[file.path]) for file in files)
