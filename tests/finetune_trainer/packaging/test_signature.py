"""A signature is made where a key is configured, over all files but the manifest; else nothing is asked for."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from finetune_contract.artifact_layout import GGUF_FILE, model_folder
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.errors import InvalidRun
from finetune_trainer.packaging.package import package
from finetune_trainer.packaging.signature import KEY_ENV, SIGNATURE_FILE, signing_key
from tests.finetune_trainer.packaging.finished_training import finished_training
from tests.finetune_trainer.training.tiny_model import RUN_KEY, save_tiny_model


class StandIn:
    """model_signing's two configurations, as far as they are used; the signature lists what was signed."""

    def __init__(self) -> None:
        self.left_out: list[Path] = []
        self.key = Path()

    def set_ignored_paths(self, *, paths: Sequence[Path], ignore_git_paths: bool) -> StandIn:
        self.left_out = list(paths)
        return self

    def use_elliptic_key_signer(self, *, private_key: Path) -> StandIn:
        if "PRIVATE KEY" not in private_key.read_text():
            raise ValueError("Could not deserialize key data")
        self.key = private_key
        return self

    def set_hashing_config(self, config: StandIn) -> StandIn:
        self.left_out = config.left_out
        return self

    def sign(self, folder: Path, signature: Path) -> None:
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p not in self.left_out)
        signature.write_text("\n".join(p.relative_to(folder).as_posix() for p in files))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model_signing", "model_signing.hashing", "model_signing.signing"):
        module = ModuleType(name)
        module.__dict__["Config"] = StandIn
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_text("-----BEGIN EC PRIVATE KEY-----")
    return path


def test_without_a_key_nothing_is_signed_and_no_package_is_needed():
    assert signing_key({}) is None


def test_a_key_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InvalidRun, match=r"missing\.pem is no file; mount the private key there"):
        signing_key({KEY_ENV: str(tmp_path / "missing.pem")})


def test_a_missing_package_is_named_before_the_work_begins(key: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)

    with pytest.raises(InvalidRun, match="needs the packages model-signing and pyopenssl"):
        signing_key({KEY_ENV: str(key)})


@pytest.mark.usefixtures("installed")
def test_the_signature_covers_every_file_but_itself_and_is_in_the_manifest(tmp_path: Path, key: Path):
    context = finished_training(tmp_path / "run", save_tiny_model(tmp_path / "base"))
    context = dataclasses.replace(context, environment={KEY_ENV: str(key)})

    package(context)

    manifest = read_manifest(context.store, model_folder(RUN_KEY))
    assert manifest is not None
    names = [entry.path for entry in manifest.files]
    assert SIGNATURE_FILE in names
    signed = (context.store.read(f"{model_folder(RUN_KEY)}/{SIGNATURE_FILE}") or b"").decode().split("\n")
    assert sorted(signed) == sorted(set(names) - {SIGNATURE_FILE})
    assert GGUF_FILE in signed


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        ("hunter2", ValueError("Could not deserialize key data")),
        ("-----BEGIN PRIVATE KEY----- hunter2", ValueError("Unsupported key for curve 'secp256k1'")),
        (
            "-----BEGIN PRIVATE KEY----- hunter2",
            AttributeError("'Ed25519PublicKey' object has no attribute 'curve'"),
        ),
        ("-----BEGIN ENCRYPTED PRIVATE KEY----- hunter2", TypeError("Password was not given")),
    ],
    ids=["no-key", "other-curve", "no-curve", "with-password"],
)
def test_what_is_no_key_to_sign_with_is_refused_before_the_work_begins_and_not_shown(
    key: Path, monkeypatch: pytest.MonkeyPatch, content: str, refusal: Exception
):
    def refuse(*_: object, **__: object) -> None:
        raise refusal

    key.write_text(content)
    monkeypatch.setattr(StandIn, "use_elliptic_key_signer", refuse)

    with pytest.raises(
        InvalidRun, match=r"key\.pem is no key.*P-256, P-384 or P-521.* without a password"
    ) as said:
        signing_key({KEY_ENV: str(key)})

    assert "hunter2" not in str(said.value)


@pytest.mark.usefixtures("installed")
def test_a_key_that_may_not_be_read_is_said_so(key: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(StandIn, "use_elliptic_key_signer", refuse)

    with pytest.raises(InvalidRun, match=r"key\.pem cannot be read \(Permission denied\)"):
        signing_key({KEY_ENV: str(key)})
