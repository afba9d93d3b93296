"""What a base model is: its files, which of them are wanted, and whether they are safe to load.

Must not know where they come from. Knows no torch: the dataset stage has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from finetune_contract.artifacts import MANIFEST_NAME, Manifest
from finetune_trainer.artifact_files import sha256_of
from finetune_trainer.errors import BaseModelRejected, StoreRejected

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
UNSAFE_FILES = ("*.py", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack")
"""What can; also where a wanted name would let it pass (tokenizer.py)."""


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


def is_wanted(name: str) -> bool:
    """Files of the folder itself that match SAFE_FILES; sub-folders hold other formats of the same weights."""
    return (
        "/" not in name
        and name != MANIFEST_NAME
        and any(fnmatch(name, pattern) for pattern in SAFE_FILES)
        and not _is_unsafe(name)
    )


def check_is_safe(place: str, names: Sequence[str]) -> None:
    """Refuse what cannot be loaded without running code from the model."""
    unsafe = [name for name in names if _is_unsafe(name) and not name.endswith(".py")]
    has_weights = any("/" not in name and name.endswith(".safetensors") for name in names)
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


def check_file(uri: str, file: BaseModelFile, path: Path) -> None:
    """Hold a fetched file to what was announced of it."""
    size = path.stat().st_size
    if size != file.size:
        raise StoreRejected(
            f"{FIELD}: {uri}: {file.path} has {size} bytes, {file.size} were announced; upload it anew"
        )
    if file.sha256 and (found := sha256_of(path)) != file.sha256:
        raise StoreRejected(
            f"{FIELD}: {uri}: {file.path} has sha256 {found}, {file.sha256} was announced; upload it anew"
        )


def files_of(manifest: Manifest) -> tuple[BaseModelFile, ...]:
    """The wanted files of a manifest."""
    return tuple(
        BaseModelFile(entry.path, entry.size, entry.sha256, entry.sha256)
        for entry in manifest.files
        if is_wanted(entry.path)
    )


def licence_of(manifest: Manifest) -> str:
    """As it was said when the manifest was written."""
    licence = manifest.facts.get("licence")
    return licence if isinstance(licence, str) else ""


def digest_of(files: Sequence[BaseModelFile]) -> str:
    """Identity of a model without a manifest."""
    table = [[file.path, file.size, file.fingerprint] for file in files]
    return hashlib.sha256(json.dumps(table, separators=(",", ":")).encode()).hexdigest()


def _is_unsafe(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in UNSAFE_FILES)
