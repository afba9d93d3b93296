"""Following a FineTuneRun to its end, with `kubectl get --watch` in view."""

from __future__ import annotations

import time
from typing import Any

from demo.cluster import Cluster
from demo.errors import DemoError
from demo.manifests import NAMESPACE
from devcluster.progress import Progress

PART = "run"


def condition(run: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition of a run, or an empty one."""
    conditions = run.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry["type"] == kind), {})


def is_ended(run: dict[str, Any]) -> bool:
    """Ready or Stalled, and said about the spec as it is."""
    if run.get("status", {}).get("observedGeneration") != run["metadata"]["generation"]:
        return False
    return any(condition(run, kind).get("status") == "True" for kind in ("Ready", "Stalled"))


def follow(cluster: Cluster, name: str, progress: Progress, timeout_seconds: float) -> dict[str, Any]:
    """Wait until a run ends.

    Raises:
        DemoError: it ended badly or not in time; the message is the run's own.
    """
    deadline = time.monotonic() + timeout_seconds
    progress.say(PART, f"kubectl get finetunerun {name} -n {NAMESPACE} --watch")
    with cluster.watching("finetunerun", name, "-n", NAMESPACE):
        while True:
            run = cluster.get("finetunerun", name, "-n", NAMESPACE)
            if run is None:
                raise DemoError(
                    f"finetunerun/{name} is gone; somebody deleted it: run the same command again"
                )
            if is_ended(run):
                break
            if time.monotonic() > deadline:
                raise DemoError(
                    f"finetunerun/{name} has not ended in {timeout_seconds:.0f} s; see kubectl describe ftr {name} "
                    f"-n {NAMESPACE}, then run the same command again: it goes on from here"
                )
            time.sleep(1)
    if condition(run, "Ready").get("status") != "True":
        stalled = condition(run, "Stalled")
        raise DemoError(f"finetunerun/{name}: {stalled.get('reason')}: {stalled.get('message')}")
    return run


def jobs_of(cluster: Cluster, name: str) -> list[str]:
    """Names of the Jobs that a run has made and that are still there."""
    found = cluster.get("jobs", "-n", NAMESPACE, "-l", f"finetune-operator.io/run={name}")
    return [job["metadata"]["name"] for job in (found or {}).get("items", [])]
