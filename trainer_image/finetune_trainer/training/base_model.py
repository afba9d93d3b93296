"""The base model: which one exactly, whether it is safe to load, and how it gets into the work folder.

`resolve` runs in every stage and is cheap; `fetch` brings the files. Knows no torch: the dataset stage has none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from finetune_contract.artifact_layout import base_model_folder
from finetune_contract.artifacts import MANIFEST_NAME, ArtifactKind, Manifest
from finetune_contract.stage_protocol import ENV_HF_TOKEN
from finetune_trainer.artifact_files import publish_folder, read_manifest, sha256_of
from finetune_trainer.errors import BaseModelRejected, SourceUnavailable, StoreRejected
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.s3 import S3Store, s3_client, s3_errors
from finetune_trainer.stores.store import Store

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

logger = logging.getLogger(__name__)

FIELD = "spec.baseModel.uri"
SAFE_FILES = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "tokenizer*",
    "*.model",
    "merges.txt",
    "vocab.txt",
    "LICENSE*",
)
"""What a model needs and what cannot run code; nothing else is downloaded."""
UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_DONE = ".fetched"
_MIB = 2**20


@dataclass(frozen=True)
class BaseModelFile:
    """One file of the model; `fingerprint` is a sha256 or what the store offers in its place."""

    path: str
    size: int
    fingerprint: str
    sha256: str = ""
    """Empty when only the store's own checksum is known."""


@dataclass(frozen=True)
class ResolvedBaseModel:
    """One exact model and the way to its files."""

    uri: str
    """Address, with the commit for Hugging Face."""
    digest: str
    """Identity of the content; part of the run key."""
    licence: str
    """Its short name where the source tells one."""
    files: tuple[BaseModelFile, ...]
    download: Callable[[str, Path], None]
    """Write the file with this path into that place."""

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size for file in self.files)


def resolve(context: StageContext) -> ResolvedBaseModel:
    """Find the model of the spec; a Hugging Face model is copied into the store on the first call.

    Raises:
        BaseModelRejected: there is none, it is gated, or its files are not safe to load.
        SourceUnavailable: Hugging Face does not answer.
    """
    uri = context.spec.base_model.uri
    if uri.startswith("s3://"):
        return _resolve_s3(context, uri)
    if uri.startswith("hf://"):
        return _resolve_hugging_face(context, uri)
    return _resolve_folder(uri)


def fetch(context: StageContext, base: ResolvedBaseModel | None = None) -> Path:
    """The model's files in the work folder, checked; quick when an earlier attempt left them there.

    Raises:
        StoreRejected: a file is not what was announced.
    """
    base = base or resolve(context)
    folder = context.work_folder / "base-model"
    done = folder / _DONE
    if done.is_file() and done.read_text() == base.digest:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    total, fetched = max(1, base.size_bytes // _MIB), 0
    for file in base.files:
        context.progress(fetched // _MIB, total, message="fetching the base model (MiB)")
        path = folder / file.path
        base.download(file.path, path)
        _check_file(base.uri, file, path)
        fetched += file.size
    context.progress(total, total, message="fetching the base model (MiB)")
    done.write_text(base.digest)
    logger.info("base model fetched: uri=%s files=%d bytes=%d", base.uri, len(base.files), base.size_bytes)
    return folder


def check_is_safe(place: str, names: Sequence[str]) -> None:
    """Refuse what cannot be loaded without running code from the model."""
    unsafe = [name for name in names if any(fnmatch(name, pattern) for pattern in UNSAFE_WEIGHTS)]
    has_weights = any(name.endswith(".safetensors") for name in names)
    if not names:
        raise BaseModelRejected(
            f"{FIELD}: {place} holds no files; correct the address (a folder, ending in /)"
        )
    if not has_weights and unsafe:
        raise BaseModelRejected(
            f"{FIELD}: {place} holds {unsafe[0]} and no *.safetensors; a pickle can run code when it is loaded: "
            "convert the model to safetensors"
        )
    if not has_weights:
        raise BaseModelRejected(f"{FIELD}: {place} holds no *.safetensors; upload the model's weights")
    if "config.json" not in names:
        raise BaseModelRejected(f"{FIELD}: {place} holds no config.json; upload the whole model folder")


def _resolve_s3(context: StageContext, uri: str) -> ResolvedBaseModel:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    spec = context.spec.store.s3
    shelf = S3Store(s3_client(spec.endpoint, spec.region), bucket, prefix)
    start = len(shelf.prefix) + 1 if shelf.prefix else 0
    listed: list[tuple[str, int, str]] = []
    with s3_errors(f"{FIELD}: {uri}"):
        pages = shelf.client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=f"{shelf.prefix}/" if shelf.prefix else ""
        )
        for page in pages:
            listed += [
                (entry["Key"][start:], entry["Size"], entry["ETag"].strip('"'))
                for entry in page.get("Contents", [])
            ]
    check_is_safe(uri, [name for name, _, _ in listed])
    manifest = _manifest_beside(shelf)
    if manifest is not None:
        return ResolvedBaseModel(
            uri, manifest.sha256(), _licence_of(manifest), _files_of(manifest), shelf.download
        )
    files = tuple(BaseModelFile(name, size, etag) for name, size, etag in sorted(listed) if _is_wanted(name))
    return ResolvedBaseModel(uri, _digest(files), "", files, shelf.download)


def _manifest_beside(shelf: Store) -> Manifest | None:
    """The manifest that we write ourselves beside a model, with the sha256 of every file."""
    content = shelf.read(MANIFEST_NAME)
    if content is None:
        return None
    try:
        manifest = Manifest.model_validate_json(content)
    except ValueError:
        return None
    return manifest if manifest.kind is ArtifactKind.BASE_MODEL else None


def _resolve_folder(uri: str) -> ResolvedBaseModel:
    root = Path(unquote(urlsplit(uri).path))
    if not root.is_dir():
        raise BaseModelRejected(f"{FIELD}: {root} is no folder; correct the path (file:///absolute/path)")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    check_is_safe(str(root), names)
    files = []
    for name in names:
        if _is_wanted(name):
            checksum = sha256_of(root / name)
            files.append(BaseModelFile(name, (root / name).stat().st_size, checksum, checksum))

    def copy(name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)

    return ResolvedBaseModel(uri, _digest(files), "", tuple(files), copy)


def _resolve_hugging_face(context: StageContext, uri: str) -> ResolvedBaseModel:
    repository, _, revision = uri.removeprefix("hf://").partition("@")
    owner, _, name = repository.partition("/")
    info: ModelInfo | None = None
    commit = revision
    if not _COMMIT.fullmatch(revision):
        info = _model_info(repository, revision or "main", context.environment)
        commit = str(info.sha)
    key = base_model_folder(owner, name, commit)
    manifest = read_manifest(context.store, key)
    if manifest is None:
        info = info or _model_info(repository, commit, context.environment)
        check_is_safe(f"hf://{repository}@{commit}", [file.rfilename for file in info.siblings or []])
        manifest = _copy_to_store(context, repository, commit, key, info)
    return ResolvedBaseModel(
        uri=f"hf://{repository}@{commit}",
        digest=manifest.sha256(),
        licence=_licence_of(manifest),
        files=_files_of(manifest),
        download=lambda path, target: context.store.download(f"{key}/{path}", target),
    )


def _model_info(repository: str, revision: str, environment: Mapping[str, str]) -> ModelInfo:
    from huggingface_hub import HfApi

    token = environment.get(ENV_HF_TOKEN) or False
    with _hugging_face_errors(repository, revision, bool(token)):
        return HfApi(token=token).model_info(repository, revision=revision, files_metadata=True)


def _copy_to_store(
    context: StageContext, repository: str, commit: str, key: str, info: ModelInfo
) -> Manifest:
    """Download from Hugging Face (files that are there stay) and publish, so that later stages need no internet."""
    from huggingface_hub import snapshot_download

    folder = context.work_folder / "hugging-face"
    wanted = [file for file in info.siblings or [] if _is_wanted(file.rfilename)]
    total = max(1, sum(file.size or 0 for file in wanted) // _MIB)
    token = context.environment.get(ENV_HF_TOKEN) or False
    done = 0
    for file in wanted:
        context.progress(done // _MIB, total, message=f"downloading {repository} (MiB)")
        with _hugging_face_errors(repository, commit, bool(token)):
            snapshot_download(
                repository, revision=commit, local_dir=folder, allow_patterns=[file.rfilename], token=token
            )
        done += file.size or 0
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    licence = str(info.card_data.license) if info.card_data and info.card_data.license else ""
    facts = {"uri": f"hf://{repository}@{commit}", "licence": licence}
    manifest = publish_folder(context.store, key, folder, ArtifactKind.BASE_MODEL, facts)
    shutil.rmtree(folder)
    return manifest


class _hugging_face_errors:  # noqa: N801 - reads as the function it is used like
    """Turn huggingface_hub's errors into ours, in words that name the remedy."""

    def __init__(self, repository: str, revision: str, has_token: bool) -> None:
        self.place = f"{FIELD}: hf://{repository}@{revision}"
        self.repository, self.has_token = repository, has_token

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from huggingface_hub import errors

        if error is None:
            return
        page = f"https://huggingface.co/{self.repository}"
        if isinstance(error, errors.GatedRepoError):
            remedy = (
                "with the account of the token" if self.has_token else "and set spec.baseModel.tokenSecretRef"
            )
            raise BaseModelRejected(
                f"{self.place}: its licence must be accepted; accept it at {page} {remedy}"
            ) from error
        if isinstance(error, errors.RevisionNotFoundError):
            raise BaseModelRejected(
                f"{self.place}: there is no such revision; see {page}/commits/main"
            ) from error
        if isinstance(error, errors.RepositoryNotFoundError):
            remedy = (
                "check the name, and that the token may read it"
                if self.has_token
                else ("check the name; a private model needs spec.baseModel.tokenSecretRef")
            )
            raise BaseModelRejected(f"{self.place}: there is no such model; {remedy}") from error
        if isinstance(error, errors.HfHubHTTPError):
            status = error.response.status_code if error.response is not None else 0
            if status in {401, 403}:
                raise BaseModelRejected(
                    f"{self.place}: Hugging Face refuses the token ({status}); correct spec.baseModel.tokenSecretRef"
                ) from error
            raise SourceUnavailable(
                f"{self.place}: Hugging Face answered {status}; it is tried again"
            ) from error
        if isinstance(error, ConnectionError) or (isinstance(error, OSError) and error.errno is None):
            raise SourceUnavailable(
                f"{self.place}: Hugging Face does not answer ({type(error).__name__}); "
                "in a closed cluster put the model into S3 and write s3://bucket/prefix/"
            ) from error


def _check_file(uri: str, file: BaseModelFile, path: Path) -> None:
    size = path.stat().st_size
    if size != file.size:
        raise StoreRejected(
            f"{FIELD}: {uri}{file.path} has {size} bytes, {file.size} were announced; upload it anew"
        )
    if file.sha256 and (found := sha256_of(path)) != file.sha256:
        raise StoreRejected(
            f"{FIELD}: {uri}{file.path} has sha256 {found}, {file.sha256} was announced; upload it anew"
        )


def _is_wanted(name: str) -> bool:
    """Files of the folder itself that match SAFE_FILES; sub-folders hold other formats of the same weights."""
    return "/" not in name and name != MANIFEST_NAME and any(fnmatch(name, pattern) for pattern in SAFE_FILES)


def _files_of(manifest: Manifest) -> tuple[BaseModelFile, ...]:
    return tuple(
        BaseModelFile(entry.path, entry.size, entry.sha256, entry.sha256) for entry in manifest.files
    )


def _licence_of(manifest: Manifest) -> str:
    licence = manifest.facts.get("licence")
    return licence if isinstance(licence, str) else ""


def _digest(files: Sequence[BaseModelFile]) -> str:
    table = [[file.path, file.size, file.fingerprint] for file in files]
    return hashlib.sha256(json.dumps(table, separators=(",", ":")).encode()).hexdigest()
