"""Files of a model on Hugging Face. The only file that knows huggingface_hub; its errors end here.

huggingface_hub does the work: a cache that all programs of a machine share, one download of a file at a time, a broken
connection taken up again in the middle of the file. Its checks end at a file's length, so the content is checked here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from finetune_contract.secret_text import NOT_SENDABLE, is_sendable, without_margins
from finetune_contract.stage_protocol import ENV_HF_TOKEN
from finetune_trainer.artifact_files import sha256_of
from finetune_trainer.errors import BaseModelRejected, SourceUnavailable
from finetune_trainer.training.base_model_files import FIELD

logger = logging.getLogger(__name__)

TOKEN_FIELD = "spec.baseModel.tokenSecretRef"  # noqa: S105 - the name of a field
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class HubFile:
    """A file as Hugging Face announces it."""

    path: str
    size: int
    sha256: str = ""
    """Of files in large file storage."""
    git_sha1: str = ""
    """Of the others: git's name of the content."""

    def is_in(self, path: Path, sha256: str) -> bool:
        """Whether that is the content of the file at `path`, which has this sha256."""
        if self.sha256:
            return sha256 == self.sha256
        return not self.git_sha1 or _git_sha1(path) == self.git_sha1


@dataclass(frozen=True)
class HubModel:
    """One commit of a model."""

    repository: str
    commit: str
    licence: str
    files: tuple[HubFile, ...]


class Hub:
    """Hugging Face, or the mirror of it that HF_ENDPOINT names, for one run. Opens nothing before it is asked."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """
        Raises:
            BaseModelRejected: the token cannot be sent.
        """
        token = without_margins(environment.get(ENV_HF_TOKEN, ""))
        if not is_sendable(token):
            raise BaseModelRejected(
                f"{TOKEN_FIELD}: the token {NOT_SENDABLE}; correct the Secret ({ENV_HF_TOKEN} on a laptop)"
            )
        self._endpoint = environment.get("HF_ENDPOINT") or None
        self._token = token or False
        """Never the token that somebody left on this machine: the run must do the same everywhere."""
        self._cache = environment.get("HF_HUB_CACHE") or (
            f"{environment['HF_HOME']}/hub" if environment.get("HF_HOME") else None
        )

    @property
    def cache_folder(self) -> Path:
        """Where downloaded files lie."""
        from huggingface_hub import constants

        return Path(self._cache or constants.HF_HUB_CACHE)

    def look_up(self, repository: str, revision: str) -> HubModel:
        """The commit that a branch, tag or commit stands for, and its files.

        Raises:
            BaseModelRejected: there is no such model or revision, there can be none, or it is not for this token.
            SourceUnavailable: no answer.
        """
        from huggingface_hub import HfApi

        with self._errors(repository, revision):
            info = HfApi(endpoint=self._endpoint, token=self._token).model_info(
                repository, revision=revision, files_metadata=True, timeout=_ANSWER_SECONDS
            )
        files = tuple(
            HubFile(
                file.rfilename,
                file.size or 0,
                sha256=file.lfs.sha256 if file.lfs else "",
                git_sha1="" if file.lfs else file.blob_id or "",
            )
            for file in info.siblings or []
        )
        licence = str(info.card_data.license) if info.card_data and info.card_data.license else ""
        return HubModel(repository, str(info.sha), licence, files)

    def download(self, model: HubModel, file: HubFile) -> tuple[Path, str]:
        """The file in the cache, and its sha256. What was announced is what is there, or nothing stays.

        Raises:
            BaseModelRejected: its licence is not accepted, or the token is refused.
            SourceUnavailable: no answer, or twice another content than announced.
        """
        for _ in range(2):
            path = self._download(model, file)
            sha256 = sha256_of(path)
            if file.is_in(path, sha256):
                return path, sha256
            logger.warning(
                "downloaded file is damaged and fetched anew: file=%s sha256=%s", file.path, sha256
            )
            self.forget(path)
        raise SourceUnavailable(
            f"{FIELD}: hf://{model.repository}@{model.commit}: {file.path} came twice with another content than "
            "announced; a proxy may change it: put the model into S3 and write s3://bucket/prefix/"
        )

    def forget(self, path: Path) -> None:
        """Remove a file from the cache."""
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def _download(self, model: HubModel, file: HubFile) -> Path:
        from huggingface_hub import hf_hub_download

        with self._errors(model.repository, model.commit):
            return Path(
                hf_hub_download(
                    model.repository,
                    file.path,
                    revision=model.commit,
                    cache_dir=self.cache_folder,
                    endpoint=self._endpoint,
                    token=self._token,
                )
            )

    @contextmanager
    def _errors(self, repository: str, revision: str) -> Iterator[None]:
        """Turn huggingface_hub's errors into ours, in words that name the remedy."""
        from huggingface_hub import errors

        try:
            yield
        except errors.HFValidationError as error:
            raise BaseModelRejected(
                f"{FIELD}: hf://{repository} cannot be the name of a model ({error}); "
                "write it as its page on Hugging Face does"
            ) from error
        except errors.LocalEntryNotFoundError as error:  # says "not in the cache"; what is behind it says why
            cause = error.__cause__ or error
            raise self._translated(repository, revision, cause) from error
        except (errors.HTTPError, errors.XetDownloadError, OSError, RuntimeError) as error:  # type: ignore[attr-defined]
            raise self._translated(repository, revision, error) from error
        except (LookupError, TypeError, AttributeError) as error:  # it takes any JSON for Hugging Face's own
            raise BaseModelRejected(
                f"{FIELD}: hf://{repository}@{revision}: {self._endpoint or 'what answers'} does not answer as "
                "Hugging Face does; correct HF_ENDPOINT"
            ) from error

    def _translated(self, repository: str, revision: str, error: BaseException) -> Exception:
        from huggingface_hub import errors

        place = f"{FIELD}: hf://{repository}@{revision}"
        page = f"https://huggingface.co/{repository}"
        if isinstance(error, errors.GatedRepoError):
            return BaseModelRejected(f"{place}: {self._gate(repository, page, str(error))}")
        if isinstance(error, errors.RevisionNotFoundError):
            return BaseModelRejected(f"{place}: there is no such revision; see {page}/commits/main")
        if isinstance(error, errors.RepositoryNotFoundError):
            remedy = (
                "check the name, and that the token may read it"
                if self._token
                else f"check the name; a private model needs {TOKEN_FIELD}"
            )
            return BaseModelRejected(f"{place}: there is no such model; {remedy}")
        if isinstance(error, errors.DisabledRepoError):
            return BaseModelRejected(
                f"{place}: Hugging Face has closed this model; choose another, see {page}"
            )
        if isinstance(error, errors.HfHubHTTPError):
            return self._of_status(place, error.response.status_code)
        if isinstance(error, errors.OfflineModeIsEnabled):
            return BaseModelRejected(
                f"{place}: HF_HUB_OFFLINE is set, and the model is not in the store; unset it, "
                "or put the model into S3 and write s3://bucket/prefix/"
            )
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            return BaseModelRejected(
                f"{place}: cannot be written to {self.cache_folder} ({error.strerror}); make room there, "
                "or raise spec.resources.other.scratch"
            )
        return SourceUnavailable(
            f"{place}: Hugging Face does not answer ({type(error).__name__}); it is tried again; "
            "in a closed cluster put the model into S3 and write s3://bucket/prefix/"
        )

    def _gate(self, repository: str, page: str, words: str) -> str:
        if "awaiting a review" in words:
            return (
                f"its owners have not yet let the account of this token in; wait for their answer, see {page}"
            )
        if self._token:
            return (
                f"accept the licence of {repository} at {page} with the account of this token; "
                "a fine-grained token also needs the right to read public gated repositories"
            )
        return (
            f"accept the licence of {repository} at {page} and put a token of the same account into "
            f"{TOKEN_FIELD} (HF_TOKEN on a laptop)"
        )

    def _of_status(self, place: str, status: int) -> Exception:
        if status in {401, 403}:
            return BaseModelRejected(
                f"{place}: Hugging Face refuses the token ({status}); correct {TOKEN_FIELD} (HF_TOKEN on a laptop): "
                "it must be valid and may read this model"
            )
        if status == 404:
            return BaseModelRejected(
                f"{place}: a file that was announced is gone (404); name another revision"
            )
        return SourceUnavailable(f"{place}: Hugging Face answered {status}; it is tried again")


def _git_sha1(path: Path) -> str:
    """Git's name of a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
