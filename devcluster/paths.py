"""Where everything lies, and which names and addresses an instance has. Pure: creates nothing, starts nothing."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import DevclusterError

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent
VENV = REPOSITORY / ".venv"
VENV_PYTHON = VENV / "bin" / "python"

_KNOWN_SUBNETS = {"demo": 201, "test": 202}
_FIRST_HASHED_SUBNET, _HASHED_SUBNETS = 203, 50


def cache_folder() -> Path:
    """Built programs, extracted tools and the base model: shared by every clone and every instance."""
    chosen = os.environ.get("FINETUNE_CACHE")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "finetune-operator"


def site_packages() -> Path:
    """The package folder of the project's environment."""
    found = sorted((VENV / "lib").glob("python3.*/site-packages"))
    if not found:
        raise DevclusterError(
            f"{VENV} holds no Python environment: run `uv sync --all-extras --frozen` first"
        )
    return found[0]


@dataclass(frozen=True)
class Instance:
    """One cluster with its parts. Instances of different names run side by side on one machine."""

    name: str
    repository: Path = REPOSITORY

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", self.name):
            raise DevclusterError(
                f"--name {self.name!r}: expected at most 20 small letters, digits and inner dashes, such as `demo`"
            )

    @property
    def state(self) -> Path:
        """All that the instance writes; `down --wipe` removes it."""
        return self.repository / ".devcluster" / self.name

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run(self) -> Path:
        """Facts about what runs now; empty after `down`."""
        return self.state / "run"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig.yaml"

    @property
    def link(self) -> str:
        """The host's end of the wire into the node; a link name has at most 15 bytes."""
        short = self.name if len(self.name) <= 10 else _digest(self.name)[:10]
        return f"dc-{short}"

    @property
    def host_ip(self) -> str:
        return f"10.{self._subnet}.0.1"

    @property
    def node_ip(self) -> str:
        """Where the API server, WordPress, Weaviate and S3 answer, for the host and for pods alike."""
        return f"10.{self._subnet}.0.2"

    @property
    def cgroup(self) -> str:
        return f"devcluster-{self.name}"

    @property
    def port_base(self) -> int:
        """Ten ports that are no other instance's; needed only where a port's number leaves the network namespace."""
        return 16_000 + 10 * self._subnet

    @property
    def _subnet(self) -> int:
        known = _KNOWN_SUBNETS.get(self.name)
        return known or _FIRST_HASHED_SUBNET + int(_digest(self.name), 16) % _HASHED_SUBNETS


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
