"""An optional signature over a model's files, by the package `model-signing` and a key of one's own. Off by default.

The one file that knows model_signing. It is in no extra: it brings sigstore's whole client, so whoever signs adds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from finetune_contract.artifacts import MANIFEST_NAME
from finetune_trainer.errors import InvalidRun

SIGNATURE_FILE = "model.sig"
KEY_ENV = "MODEL_SIGNING_KEY_FILE"
"""Path of a private elliptic-curve key in PEM form; empty or missing: nothing is signed."""
_CURVES = "P-256, P-384 or P-521"
"""Those that model_signing takes."""


def signing_key(environment: Mapping[str, str]) -> Path | None:
    """The key to sign with; None when no signature is asked for.

    Raises:
        InvalidRun: there is no such file, it is no key to sign with, or the package is not installed.
    """
    name = environment.get(KEY_ENV, "")
    if not name:
        return None
    path = Path(name)
    if not path.is_file():
        raise InvalidRun(f"{KEY_ENV}: {path} is no file; mount the private key there, or unset the variable")
    try:
        import_module("model_signing.signing")
    except ImportError as error:
        raise InvalidRun(
            f"{KEY_ENV}: a signature needs the packages model-signing and pyopenssl ({error}); "
            "add them to the trainer's image, or unset the variable"
        ) from error
    _signer(path)
    return path


def sign_folder(folder: Path, key: Path) -> None:
    """Write SIGNATURE_FILE beside the files that it signs: all but itself and the manifest, which comes later.

    Raises:
        InvalidRun: the file is no key to sign with.
    """
    hashing = import_module("model_signing.hashing")
    signature = folder / SIGNATURE_FILE
    signature.unlink(missing_ok=True)
    left_out = [signature, folder / MANIFEST_NAME]
    config = hashing.Config().set_ignored_paths(paths=left_out, ignore_git_paths=False)
    _signer(key).set_hashing_config(config).sign(folder, signature)


def _signer(key: Path) -> Any:
    """model_signing's, which reads the key as it is made."""
    try:
        return import_module("model_signing.signing").Config().use_elliptic_key_signer(private_key=key)
    except OSError as error:
        raise InvalidRun(
            f"{KEY_ENV}: {key.name} cannot be read ({error.strerror}); mount it readable"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:  # the last where the key has no curve at all
        raise InvalidRun(
            f"{KEY_ENV}: {key.name} is no key to sign with; it must be a private key of the elliptic curve {_CURVES} "
            "in PEM form without a password: openssl ecparam -name prime256v1 -genkey -noout"
        ) from error
