"""MLflow and Weights & Biases with stand-ins for their packages: off by default, and never the end of a training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from finetune_trainer.training.trackers import TRACKERS, Trackers, open_trackers
from tests.finetune_trainer.training.tiny_model import RUN_KEY, context_for, spec_for


@pytest.fixture(autouse=True)
def fresh_modules() -> Iterator[None]:
    """Ours are imported anew, so that each test's stand-in is met."""
    yield
    for module, _ in TRACKERS.values():
        sys.modules.pop(module, None)


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **content: object) -> None:
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


class MlflowException(Exception):
    pass


class FakeMlflow:
    """A server that remembers, as far as MlflowClient is used."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.uris: list[str] = []
        self.is_down = False

    def client(self, tracking_uri: str) -> FakeMlflow:
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name: str) -> object:
        if self.is_down:
            raise MlflowException("http://me:secret@mlflow:5000/api: connection refused")
        return SimpleNamespace(experiment_id=f"id of {name}") if self.runs else None

    def create_experiment(self, name: str) -> str:
        return f"id of {name}"

    def search_runs(self, experiments: list[str], filter_string: str, max_results: int) -> list[object]:
        return [
            SimpleNamespace(info=SimpleNamespace(run_id=run_id))
            for run_id, run in self.runs.items()
            if run["experiment"] in experiments
            and filter_string == f"tags.`finetune.run_key` = '{run['tags']['finetune.run_key']}'"
        ]

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> object:
        self.runs[run_name] = {"experiment": experiment, "tags": tags, "metrics": [], "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status

    def log_batch(self, run_id: str, metrics: list[tuple[Any, ...]], synchronous: bool) -> None:
        if self.is_down:
            raise MlflowException("http://me:secret@mlflow:5000/api: connection refused")
        self.runs[run_id]["metrics"] += [(key, value, step) for key, value, _, step in metrics]

    set_terminated = update_run


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    server = FakeMlflow()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    status = SimpleNamespace(FINISHED="FINISHED", KILLED="KILLED", RUNNING="RUNNING", to_string=str)
    stand_in(monkeypatch, "mlflow")
    stand_in(monkeypatch, "mlflow.entities", Metric=lambda *values: values, RunStatus=status)
    stand_in(monkeypatch, "mlflow.tracking", MlflowClient=server.client)
    return server


class WandbError(Exception):
    pass


class FakeWandb:
    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.exit_codes: list[int] = []
        self.refuses = False

    def init(self, **asked: object) -> FakeWandb:
        if self.refuses:
            raise WandbError("wrong key")
        self.asked = asked
        return self

    def log(self, row: dict[str, float], step: int) -> None:
        self.rows.append((step, row))

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    service = FakeWandb()
    stand_in(monkeypatch, "wandb", init=service.init, Settings=dict)
    return service


def trackers(folder: Path, **environment: str) -> Trackers:
    return open_trackers(replace(context_for(folder, spec_for(folder)), environment=environment))


def test_nobody_is_told_unless_it_is_turned_on(tmp_path: Path, mlflow: FakeMlflow, wandb: FakeWandb) -> None:
    told = trackers(tmp_path, MLFLOW_TRACKING_URI="")
    told.add(1, {"loss": 2.0})
    told.close(finished=True)

    assert mlflow.uris == []
    assert wandb.asked == {}


def test_both_attempts_of_a_run_lie_in_one_mlflow_run(tmp_path: Path, mlflow: FakeMlflow) -> None:
    first = trackers(tmp_path, MLFLOW_TRACKING_URI="http://mlflow:5000")
    first.add(1, {"loss": 2.0})
    first.close(finished=False)
    assert mlflow.runs["tiny"]["status"] == "KILLED"

    second = trackers(tmp_path, MLFLOW_TRACKING_URI="http://mlflow:5000")
    second.add(2, {"loss": 1.0, "evaluation_loss": 1.5})
    assert mlflow.runs["tiny"]["status"] == "RUNNING"
    second.close(finished=True)

    assert mlflow.uris == ["http://mlflow:5000"] * 2
    assert mlflow.runs == {
        "tiny": {
            "experiment": "id of finetune",
            "tags": {"finetune.run_key": RUN_KEY},
            "metrics": [("loss", 2.0, 1), ("loss", 1.0, 2), ("evaluation_loss", 1.5, 2)],
            "status": "FINISHED",
        }
    }


def test_weights_and_biases_get_the_rows_and_the_run_goes_on_under_its_key(
    tmp_path: Path, wandb: FakeWandb
) -> None:
    told = trackers(tmp_path, WANDB_API_KEY="secret", WANDB_PROJECT="site")
    told.add(7, {"loss": 2.0})
    told.close(finished=True)

    assert (wandb.asked["project"], wandb.asked["name"], wandb.asked["id"]) == ("site", "tiny", RUN_KEY[:32])
    assert wandb.asked["resume"] == "allow"
    assert wandb.asked["settings"]["console"] == "off"
    assert "secret" not in repr(wandb.asked)
    assert wandb.rows == [(7, {"loss": 2.0})]
    assert wandb.exit_codes == [0]


def test_a_server_that_is_lost_is_named_once_and_left_alone(
    tmp_path: Path, mlflow: FakeMlflow, caplog: pytest.LogCaptureFixture
) -> None:
    told = trackers(tmp_path, MLFLOW_TRACKING_URI="http://mlflow:5000")
    mlflow.is_down = True

    told.add(1, {"loss": 2.0})
    told.add(2, {"loss": 1.0})
    told.close(finished=True)

    assert caplog.text.count("http://mlflow:5000/api: connection refused") == 1
    assert "secret" not in caplog.text


def test_a_service_that_refuses_at_first_is_named(
    tmp_path: Path, wandb: FakeWandb, mlflow: FakeMlflow, caplog: pytest.LogCaptureFixture
) -> None:
    wandb.refuses = mlflow.is_down = True

    trackers(tmp_path, WANDB_API_KEY="x", MLFLOW_TRACKING_URI="http://mlflow:5000").add(1, {"loss": 2.0})

    assert "WANDB_API_KEY: is not told about the training: wrong key" in caplog.text
    assert (
        "MLFLOW_TRACKING_URI: is not told about the training: http://mlflow:5000/api: connection"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("variable", "error"),
    [
        (
            "MLFLOW_TRACKING_URI",
            ValueError("Model registry functionality is unavailable for mlflow.mlflow:5000"),
        ),
        ("MLFLOW_TRACKING_URI", ModuleNotFoundError("No module named 'sqlalchemy'")),
        ("WANDB_API_KEY", ValueError("1 validation error for Settings\nbase_url: not a valid URL")),
    ],
)
def test_a_wrong_setting_is_named_in_a_line_and_the_training_goes_on(
    tmp_path: Path,
    wandb: FakeWandb,
    mlflow: FakeMlflow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    error: Exception,
) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules["wandb"], "Settings", refuse)
    monkeypatch.setattr(sys.modules["mlflow.tracking"], "MlflowClient", refuse)

    trackers(tmp_path, **{variable: "x"}).add(1, {"loss": 2.0})

    words = (
        f"{variable}: is not told about the training: {' '.join(str(error).split())} ({type(error).__name__})"
    )
    assert caplog.messages == [words]


@pytest.mark.parametrize("at", ["log", "finish"])
def test_whatever_a_package_raises_midway_does_not_end_the_training(
    tmp_path: Path,
    wandb: FakeWandb,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    at: str,
) -> None:
    def break_off(*_: object, **__: object) -> None:
        raise BrokenPipeError("the service is gone")

    told = trackers(tmp_path, WANDB_API_KEY="x")
    monkeypatch.setattr(wandb, at, break_off)

    told.add(1, {"loss": 2.0})
    told.close(finished=True)

    assert caplog.messages == [
        "WANDB_API_KEY: no longer told about the training: the service is gone (BrokenPipeError)"
    ]


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)

    trackers(tmp_path, WANDB_API_KEY="x").add(1, {"loss": 2.0})

    assert "WANDB_API_KEY is set and its package is missing" in caplog.text
    assert "pip install wandb" in caplog.text
