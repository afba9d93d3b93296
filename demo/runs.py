"""Following a FineTuneRun to its end, with `kubectl get --watch` in view."""

from __future__ import annotations

import time
from typing import Any

from demo.cluster import Cluster
from demo.errors import DemoError
from demo.manifests import NAMESPACE
from devcluster.progress import Progress
from finetune_contract.run_status import ENDED_PHASES

PART = "run"


def condition(run: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition of a run, or an empty one."""
    conditions = run.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry["type"] == kind), {})


SECONDS_BETWEEN_LOOKS = 4
"""Each starts a kubectl, which takes a training on two processors more time than it seems."""
STALLED_PATIENCE_SECONDS = 30.0
"""A run that waits for a person may go on by itself when the cause has just been mended."""


def is_ended(run: dict[str, Any]) -> bool:
    """In a last phase, and said about the spec as it is."""
    status = run.get("status", {})
    return (
        status.get("observedGeneration") == run["metadata"]["generation"]
        and status.get("phase") in ENDED_PHASES
    )


def is_stalled(run: dict[str, Any]) -> bool:
    """Waiting for a person."""
    return condition(run, "Stalled").get("status") == "True"


def follow(cluster: Cluster, name: str, progress: Progress, timeout_seconds: float) -> dict[str, Any]:
    """Wait until a run ends.

    Raises:
        DemoError: it ended badly or not in time; the message is the run's own.
    """
    deadline = time.monotonic() + timeout_seconds
    stalled_since: float | None = None
    progress.say(PART, f"kubectl get finetunerun {name} -n {NAMESPACE} --watch")
    with cluster.watching("finetunerun", name, "-n", NAMESPACE):
        while True:
            run = cluster.get("finetunerun", name, "-n", NAMESPACE)
            if run is None:
                raise DemoError(
                    f"finetunerun/{name} is gone; somebody deleted it: run the same command again"
                )
            now = time.monotonic()
            stalled_since = (stalled_since or now) if is_stalled(run) else None
            if is_ended(run) or (stalled_since and now - stalled_since > STALLED_PATIENCE_SECONDS):
                break
            if now > deadline:
                raise DemoError(
                    f"finetunerun/{name} has not ended in {timeout_seconds:.0f} s; see kubectl describe ftr {name} "
                    f"-n {NAMESPACE}, then run the same command again: it goes on from here"
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)
    if condition(run, "Ready").get("status") != "True":
        stalled = condition(run, "Stalled")
        raise DemoError(f"finetunerun/{name}: {stalled.get('reason')}: {stalled.get('message')}")
    return run


def jobs_of(cluster: Cluster, name: str) -> list[str]:
    """Names of the Jobs that a run has made and that are still there."""
    found = cluster.get("jobs", "-n", NAMESPACE, "-l", f"finetune-operator.io/run={name}")
    return [job["metadata"]["name"] for job in (found or {}).get("items", [])]
