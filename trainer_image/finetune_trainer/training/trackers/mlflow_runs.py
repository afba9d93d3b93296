"""Steps of a training as metrics of an MLflow run. A resumed attempt goes on in the same run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from mlflow.entities import Metric, RunStatus
from mlflow.tracking import MlflowClient

from finetune_trainer.stage_context import StageContext
from finetune_trainer.training.trackers import name_and_key

EXPERIMENT = "finetune"
KEY_TAG = "finetune.run_key"
MOST_RETRIES = "2"
"""Its own number, 7, would let a training wait for minutes for a server that is gone."""


class MlflowRun:
    """Writes in the background."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One batch a step."""
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics, synchronous=False)

    def close(self, finished: bool) -> None:
        """FINISHED, or KILLED when a later attempt goes on."""
        status = RunStatus.FINISHED if finished else RunStatus.KILLED
        self._client.set_terminated(self._run_id, RunStatus.to_string(status))


def open_tracker(context: StageContext) -> MlflowRun:
    """The run of this run key in the experiment MLFLOW_EXPERIMENT_NAME, or a new one."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", MOST_RETRIES)
    client = MlflowClient(tracking_uri=context.environment["MLFLOW_TRACKING_URI"])
    name = context.environment.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    experiment = client.get_experiment_by_name(name)
    experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
    found = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{context.run_key}'", max_results=1)
    if found:
        run_id = found[0].info.run_id
        client.update_run(run_id, RunStatus.to_string(RunStatus.RUNNING))
    else:
        run_name, _ = name_and_key(context)
        run = client.create_run(experiment_id, run_name=run_name, tags={KEY_TAG: context.run_key})
        run_id = run.info.run_id
    return MlflowRun(client, run_id)
