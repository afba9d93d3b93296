"""Whatever ends a training run, the next attempt goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.artifact_layout import checkpoints_folder
from finetune_trainer.errors import Preempted
from finetune_trainer.stores.local_folder import LocalFolder
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import RUN_KEY
from tests.finetune_trainer.training.tiny_run import assert_same_run, context_with_checkpoints

ROOT = Path(__file__).parents[3]


class Killed(BaseException):
    """Nothing of ours may catch it."""


class DyingStore(LocalFolder):
    """The process dies in the n-th change of the store, after a part of it."""

    def __init__(self, root: Path, changes: int) -> None:
        super().__init__(root)
        self.left = changes

    def write(self, key: str, content: bytes) -> None:
        self._live()
        super().write(key, content)

    def upload(self, key: str, path: Path) -> None:
        self._live()
        super().upload(key, path)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._live()
            super().delete([key])

    def _live(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(context_with_checkpoints(folder, base))
    return folder


ENDINGS = st.one_of(
    st.tuples(st.just("is told to stop"), st.integers(0, 14)),
    st.tuples(st.just("dies in a change of the store"), st.integers(0, 60)),
)


@settings(max_examples=8, deadline=None)
@given(st.lists(ENDINGS, min_size=1, max_size=3))
def test_a_run_that_ends_at_any_step_and_in_any_way_comes_to_the_same_end(
    base: Path, undisturbed: Path, endings: list[tuple[str, int]]
):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        context = context_with_checkpoints(folder, base)
        for how, moment in endings:
            if how == "is told to stop":
                questions = iter(range(moment))
                attempt = replace(context, stop_requested=lambda left=questions: next(left, None) is None)
            else:
                attempt = replace(context, store=DyingStore(folder / "store", moment))
            try:
                train(attempt)
            except (Killed, Preempted):
                continue

        train(context)

        assert_same_run(folder, undisturbed)
        assert context.store.list(f"{checkpoints_folder(RUN_KEY)}/") == []


def test_a_run_that_is_killed_at_random_moments_comes_to_the_same_end(tmp_path: Path):
    """A real SIGKILL, which leaves no time for anything."""
    subprocess.run(
        [sys.executable, "-m", "tests.finetune_trainer.training.killed_training", str(tmp_path), "7"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    attempts = json.loads((tmp_path / "attempts.json").read_text())

    assert attempts["kills"] > 0
    assert_same_run(tmp_path / "killed", tmp_path / "undisturbed")
