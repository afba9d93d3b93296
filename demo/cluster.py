"""kubectl and helm as a user would type them. Knows no demo."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from demo.errors import DemoError

Manifest = Mapping[str, Any]
MANAGER = "demo"


@dataclass(frozen=True)
class Cluster:
    """A cluster and the programs to speak to it. `environment` holds KUBECONFIG and PATH."""

    environment: Mapping[str, str]

    def kubectl(self, *arguments: str, given: str | None = None, check: bool = True) -> str:
        """What kubectl prints on stdout.

        Raises:
            DemoError: kubectl failed and `check` is set; the message is kubectl's own.
        """
        return self._run("kubectl", arguments, given, check)

    def helm(self, *arguments: str) -> str:
        """What helm prints on stdout."""
        return self._run("helm", arguments, None, check=True)

    def apply(self, manifests: Sequence[Manifest]) -> None:
        """`kubectl apply --server-side` of objects; their content goes by stdin, so that no Secret shows in a
        process list.

        Server-side, for a later server-side apply by another manager would take over what a client-side one set.
        """
        self.kubectl(
            "apply",
            "--server-side",
            "--force-conflicts",
            f"--field-manager={MANAGER}",
            "-f",
            "-",
            given=yaml.safe_dump_all(manifests),
        )

    def get(self, *arguments: str) -> dict[str, Any] | None:
        """One object, or None when there is none."""
        text = self.kubectl("get", *arguments, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    @contextmanager
    def watching(self, *arguments: str) -> Iterator[None]:
        """`kubectl get ... -w` printing to our own stdout while the block runs."""
        with subprocess.Popen(["kubectl", "get", *arguments, "--watch"], env=self._environment()) as process:
            try:
                yield
            finally:
                process.terminate()

    @contextmanager
    def port_forward(self, target: str, port: int, namespace: str) -> Iterator[str]:
        """An address on localhost that leads to a Service's port."""
        command = ["kubectl", "-n", namespace, "port-forward", target, f":{port}", "--address", "127.0.0.1"]
        with subprocess.Popen(
            command, env=self._environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                first = process.stdout.readline() if process.stdout else ""
                if "->" not in first:
                    complaint = process.stderr.read() if process.stderr else ""
                    raise DemoError(f"kubectl port-forward {target}: {complaint.strip()}")
                yield "http://" + first.split()[2]
            finally:
                process.terminate()

    def _run(self, program: str, arguments: Sequence[str], given: str | None, check: bool) -> str:
        done = subprocess.run(
            [program, *arguments],
            env=self._environment(),
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise DemoError(f"{program} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment}
