"""The cluster and the parts beside it: our own node, or the cluster of KUBECONFIG beside our own parts."""

from __future__ import annotations

import os
from dataclasses import dataclass

from demo.cluster import Cluster
from devcluster import go_programs, lifecycle
from devcluster.paths import Instance
from devcluster.progress import Progress

INSTANCE = "demo"
PARTS_BESIDE_A_CLUSTER = ("wordpress", "weaviate", "s3", "base-model")


@dataclass(frozen=True)
class Images:
    """Names of the four images."""

    prefix: str = "localhost/finetune-"
    tag: str = "dev"

    def repository(self, part: str) -> str:
        """Without the tag."""
        return f"{self.prefix}{part}"

    def image(self, part: str) -> str:
        """With the tag."""
        return f"{self.prefix}{part}:{self.tag}"


@dataclass(frozen=True)
class Setting:
    """Where the demo plays."""

    instance: Instance
    kubeconfig: str | None
    """The user's own cluster; None for our node."""
    images: Images

    @classmethod
    def from_environment(cls) -> Setting:
        """KUBECONFIG chooses the user's own cluster; FINETUNE_IMAGE_PREFIX and FINETUNE_IMAGE_TAG its images."""
        instance = Instance(os.environ.get("FINETUNE_DEMO_NAME", INSTANCE))
        kubeconfig = os.environ.get("KUBECONFIG") or None
        return cls(
            instance=instance,
            kubeconfig=None if kubeconfig == str(instance.kubeconfig) else kubeconfig,
            images=Images(
                os.environ.get("FINETUNE_IMAGE_PREFIX", "localhost/finetune-"),
                os.environ.get("FINETUNE_IMAGE_TAG", "dev"),
            ),
        )

    def environment(self) -> dict[str, str]:
        """Addresses and secrets of the parts, and how to reach the cluster."""
        found = lifecycle.environment(self.instance)
        return found if self.kubeconfig is None else {**found, "KUBECONFIG": self.kubeconfig}

    def cluster(self) -> Cluster:
        """kubectl and helm for the cluster of this setting."""
        return Cluster(
            {k: v for k, v in self.environment().items() if k in ("KUBECONFIG", "KUBECACHEDIR", "PATH")}
        )

    def bring_up(self, progress: Progress) -> None:
        """Start what does not run yet."""
        lifecycle.up(self.instance, PARTS_BESIDE_A_CLUSTER if self.kubeconfig else lifecycle.PARTS, progress)

    def begin_builds(self, progress: Progress) -> None:
        """Start compiling at once, so that everything else overlaps it."""
        if not go_programs.is_built(progress):
            pid, log = go_programs.start_in_background()
            progress.say(go_programs.PART, f"build begins in the background (process {pid}, log {log})")
