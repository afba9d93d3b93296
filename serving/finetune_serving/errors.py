"""Why a download ended badly. Each class names its exit code; the message names bucket, key, fact and remedy."""

from __future__ import annotations

from finetune_contract.stage_protocol import FetchExitCode

PACKAGE_AGAIN = (
    "delete the model's folder in the store, and apply its run under another name: it is packaged anew"
)
"""What mends a model whose files are not those of its manifest."""


class FetchError(Exception):
    """The model could not be brought here whole."""

    exit_code = FetchExitCode.STORE_UNAVAILABLE


class NotFound(FetchError):
    """Bucket, manifest or file is missing, or MODEL_URI is not an address. Trying again does not help."""

    exit_code = FetchExitCode.NOT_FOUND


class AccessDenied(FetchError):
    """The store refuses these credentials. Trying again does not help."""

    exit_code = FetchExitCode.ACCESS_DENIED


class ChecksumMismatch(FetchError):
    """The bytes are not those that were pinned."""

    exit_code = FetchExitCode.CHECKSUM_MISMATCH


class SizeMismatch(FetchError):
    """A file is longer or shorter than the manifest says."""

    exit_code = FetchExitCode.SIZE_MISMATCH


class VolumeFull(FetchError):
    """The volume has no room for the model."""

    exit_code = FetchExitCode.VOLUME_FULL


class ForbiddenFile(FetchError):
    """The manifest names a file that a model server has no use for, or a path outside the model's folder."""

    exit_code = FetchExitCode.FORBIDDEN_FILE


class StoreUnavailable(FetchError):
    """The store does not answer. A later try may succeed."""

    exit_code = FetchExitCode.STORE_UNAVAILABLE
