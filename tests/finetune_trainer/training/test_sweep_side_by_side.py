"""Pods that share a sweep make the adapter that one pod makes, whatever becomes of each and whoever ends last."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from finetune_contract.artifact_layout import adapter_folder, run_folder
from finetune_contract.stage_protocol import ProgressLine, StageReport, StepShare
from finetune_trainer.artifact_files import fetch_folder, read_manifest_and_digest
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.local_folder import LocalFolder
from finetune_trainer.training import sweep
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.sweep_pod import GRID, pod_context
from tests.finetune_trainer.training.tiny_model import (
    RUN_KEY,
    context_for,
    example,
    publish_dataset,
    spec_for,
)
from tests.finetune_trainer.training.tiny_run import assert_same_run

ROOT = Path(__file__).parents[3]
ROWS = [example(number) for number in range(10)]
QUESTIONS = [example(number) for number in range(20, 24)]


class Told:
    """Remembers the steps that were told, with their share of the whole."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, StepShare | None]] = []
        self.words: list[str] = []

    def __call__(self, step: int = 0, total_steps: int = 0, *, message: str = "", **facts: object) -> None:
        share = facts.get("share")
        assert share is None or isinstance(share, StepShare)
        self.words.append(message)
        if facts.get("loss") is not None or message == "the trials of this pod are finished":
            self.steps.append((step, total_steps, share))


def a_pod(
    folder: Path, base: Path, index: int, grid: dict[str, object] | None = None, pods: int = 2
) -> StageContext:
    context = pod_context(folder, spec_for(base, sweep={**(grid or GRID), "parallelism": pods}), index)
    publish_dataset(context, ROWS, QUESTIONS)
    return context


def told(context: StageContext) -> tuple[StageContext, Told]:
    progress = Told()
    return dataclasses.replace(context, progress=progress), progress


def left_of_the_run(store: LocalFolder) -> set[str]:
    return {key.removeprefix(f"{run_folder(RUN_KEY)}/").split("/")[0] for key in store.list("runs/")}


def digest_of_the_adapter(folder: Path) -> str:
    found = read_manifest_and_digest(LocalFolder(folder / "store"), adapter_folder(RUN_KEY))
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def by_one(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by-one")
    context = context_for(folder, spec_for(base, sweep=GRID))
    publish_dataset(context, ROWS, QUESTIONS)
    train(context)
    return folder


@pytest.fixture(scope="module")
def unpublished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both pods have finished their trials, and neither has looked what came of the other's."""
    folder = tmp_path_factory.mktemp("unpublished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "_publish_if_all_are_finished", lambda *_: None)
        train(a_pod(folder, base, 0))
        train(a_pod(folder, base, 1))
    return folder


def start(folder: Path, base: Path, index: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.finetune_trainer.training.sweep_pod",
            str(folder),
            str(base),
            str(index),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_after_a_step_of_its_second_trial(pod: subprocess.Popen[str]) -> None:
    with pod:
        assert pod.stdout is not None
        for text in pod.stdout:
            line = ProgressLine.parse(text)
            if line is not None and line.loss is not None and line.step >= 8:
                pod.kill()
                break
    assert pod.returncode != 0


def test_two_pods_at_once_one_of_them_killed_and_begun_again_make_the_adapter_that_one_pod_makes(
    by_one: Path, base: Path, tmp_path: Path
):
    store = a_pod(tmp_path, base, 0).store
    assert isinstance(store, LocalFolder)
    first, second = start(tmp_path, base, 0), start(tmp_path, base, 1)
    kill_after_a_step_of_its_second_trial(second)
    again = start(tmp_path, base, 1)

    out = [pod.communicate(timeout=600)[0].splitlines() for pod in (first, again)]

    assert (first.returncode, again.returncode) == (0, 0)
    went_on_from = next(
        line.share for text in out[1] if (line := ProgressLine.parse(text)) and line.loss is not None
    )
    assert went_on_from is not None
    assert went_on_from.from_step >= 7
    published = [
        report for lines in out if (report := StageReport.parse(lines[-1])) and report.training is not None
    ]
    assert {report.training.steps for report in published if report.training} == {24}
    assert_same_run(tmp_path, by_one)
    assert left_of_the_run(store) == {"adapter"}


class MetAt(LocalFolder):
    """Before the n-th thing that is asked of the store, something else happens once."""

    def __init__(self, root: Path, moment: int, happens: Callable[[], object]) -> None:
        super().__init__(root)
        self.left, self._happens = moment, happens

    def _meet(self) -> None:
        self.left -= 1
        if self.left == -1:
            self._happens()

    def read(self, key: str) -> bytes | None:
        self._meet()
        return super().read(key)

    def write(self, key: str, content: bytes) -> None:
        self._meet()
        super().write(key, content)

    def upload(self, key: str, path: Path) -> None:
        self._meet()
        super().upload(key, path)

    def download(self, key: str, path: Path) -> None:
        self._meet()
        super().download(key, path)

    def list(self, prefix: str) -> list[str]:
        self._meet()
        return super().list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._meet()
            super().delete([key])


def test_two_pods_that_end_together_publish_the_same_bytes_wherever_one_overtakes_the_other(
    unpublished: Path, base: Path, tmp_path: Path
):
    alone = tmp_path / "alone"
    shutil.copytree(unpublished, alone)
    train(a_pod(alone, base, 0))
    wanted = digest_of_the_adapter(alone)
    moments = 0
    for moment in range(1000):
        folder = tmp_path / str(moment)
        shutil.copytree(unpublished, folder)
        other = a_pod(folder, base, 0)
        store = MetAt(folder / "store", moment, lambda pod=other: train(pod))

        report = train(dataclasses.replace(a_pod(folder, base, 1), store=store))

        if store.left >= 0:
            break  # it asked less often than that
        moments += 1
        assert report.training is not None
        assert report.training.steps == 24
        assert digest_of_the_adapter(folder) == wanted
        fetch_folder(other.store, adapter_folder(RUN_KEY), folder / "fetched")
        assert left_of_the_run(store) == {"adapter"}
        shutil.rmtree(folder)
    assert moments > 30


def test_a_pod_that_ends_before_the_others_leaves_its_trials_to_the_last_one(base: Path, tmp_path: Path):
    first, progress = told(a_pod(tmp_path, base, 0, {"rank": [2, 4, 8]}))
    second, of_second = told(a_pod(tmp_path, base, 1, {"rank": [2, 4, 8]}))
    store = LocalFolder(tmp_path / "store")

    early = train(first)
    assert early.training is None
    assert early.message.endswith("the pod that ends last publishes the best")
    assert left_of_the_run(store) == {"trial-1", "trial-3"}
    last = train(second)

    assert last.training is not None
    assert last.training.steps == 18
    assert left_of_the_run(store) == {"adapter"}
    assert progress.steps == [
        (step, 12, StepShare(from_step=0, steps_of_all=18)) for step in (*range(1, 13), 12)
    ]
    assert [step for step, total, _ in of_second.steps if total == 6] == [*range(1, 7), 6]


def test_a_pod_that_is_begun_again_trains_no_finished_trial_and_says_what_was_done_before(
    unpublished: Path, base: Path, tmp_path: Path
):
    shutil.copytree(unpublished, tmp_path / "run")
    pod, progress = told(a_pod(tmp_path / "run", base, 1))

    report = train(pod)

    assert progress.steps == [(12, 12, StepShare(from_step=12, steps_of_all=24))]
    assert report.training is not None
    assert (report.training.steps, report.training.resumed_from_step) == (24, 12)


def test_a_pod_that_no_trial_is_left_for_ends_without_training(base: Path, tmp_path: Path):
    """Two of four trials are the same trainings as the others."""
    grid = {"rank": [2, 4], "epochs": [3, 4]}
    pod, progress = told(a_pod(tmp_path, base, 3, grid, pods=4))

    report = train(pod)

    assert report.training is None
    assert progress.steps == [(0, 0, StepShare(from_step=0, steps_of_all=12))]
    assert left_of_the_run(LocalFolder(tmp_path / "store")) == set()


def test_outside_of_a_job_for_several_pods_all_trials_are_trained(base: Path, tmp_path: Path):
    pod = a_pod(tmp_path, base, 1, {"rank": [2, 4]})

    report = train(dataclasses.replace(pod, on_cluster=False))

    assert report.training is not None
    assert report.training.steps == 12
