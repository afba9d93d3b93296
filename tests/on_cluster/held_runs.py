"""Five runs of which each is held in another phase, so that one fault meets all phases at once. Not a test itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tests.on_cluster.operator_stand import Json, Stand, rollout_to

STAGES = ("dataset", "train", "package", "evaluate")
ROLLOUT = "rollout"
RUNS = (*STAGES, ROLLOUT)
TARGET = "site"
RELEASED_BY = "go"
"""A Service of this name lets everybody go on."""


@dataclass(frozen=True)
class HeldRuns:
    """Each is named by the phase in which it is held."""

    stand: Stand
    model: str

    def release(self) -> None:
        """Let them go on."""
        self.stand.apply(self.stand.service(RELEASED_BY))

    def job(self, run: str) -> str:
        """That of the attempt at work."""
        job: str = self.stand.status(run)["attempts"][-1]["job"]
        return job

    def end_well(self) -> dict[str, Json]:
        """Their statuses, after all have succeeded and the target serves the model."""
        ended = {run: self.stand.phase(run, "Succeeded", 180) for run in RUNS}
        assert self.stand.env_of(TARGET)["MODEL_ID"] == f"sha256:{self.model}"
        return ended

    def jobs(self) -> dict[str, list[str]]:
        """Names of the Jobs that each run has."""
        listed = json.loads(self.stand.kubectl("get", "jobs", "--output=json"))["items"]
        labels = [(job["metadata"]["labels"], job["metadata"]["name"]) for job in listed]
        return {
            run: [name for label, name in labels if label["finetune-operator.io/run"] == run] for run in RUNS
        }


def hold_runs(stand: Stand, cpu: Mapping[str, Mapping[str, str]] = MappingProxyType({})) -> HeldRuns:
    """Returns when every one of them is where it is held.

    Args:
        cpu: what runs ask for, by run and part of `resources`.
    """
    model = stand.put_model(b"a model that outlives faults")
    stand.apply(stand.target_with(TARGET, WAITS_FOR=RELEASED_BY))
    for stage in STAGES:
        run = run_that(stand, stage, f"{stage}/held", model)
        for part, asked in cpu.get(stage, {}).items():
            run["spec"]["resources"][part]["cpu"] = asked
        stand.apply(run)
    stand.apply(stand.run(ROLLOUT, manifest=model, rollout=rollout_to(TARGET)))
    for stage in STAGES:
        stand.until(stage, lambda _, stage=stage: bool(pods_at_work(stand, stage, stage)))
    stand.until(ROLLOUT, lambda s: (s.get("rollout") or {}).get("phase") == "Progressing")
    return HeldRuns(stand, model)


def run_that(stand: Stand, name: str, part: str, model: str = "0" * 64) -> Json:
    """A run whose stand-in trainer plays a part in one of its stages."""
    run = stand.run(name, manifest=model)
    run["spec"]["dataset"]["sources"][0]["wordpress"]["url"] += f"/{part}"
    return run


def attempts(status: Json) -> list[tuple[str, str]]:
    """Stage and result of each."""
    return [(attempt["stage"], attempt["result"]) for attempt in status["attempts"]]


def pods_at_work(stand: Stand, run: str, stage: str) -> list[str]:
    """Names of the pods of a stage that run."""
    selector = f"--selector=finetune-operator.io/run={run},finetune-operator.io/stage={stage}"
    running = "--field-selector=status.phase=Running"
    return stand.kubectl(
        "get", "pods", selector, running, "--output=jsonpath={.items[*].metadata.name}"
    ).split()
