"""Several processes train what one trains: on two CPU processes, with gloo in the place of NCCL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_contract.artifact_layout import checkpoints_folder
from finetune_trainer.training.packing import TrainingPlan
from finetune_trainer.training.ranks import ALONE, Ranks, ranks_of
from tests.finetune_trainer.training.rank_process import SETTINGS
from tests.finetune_trainer.training.test_packing import plan_of
from tests.finetune_trainer.training.tiny_model import RUN_KEY
from tests.finetune_trainer.training.tiny_run import adapter_weights, losses, run

ROOT = Path(__file__).parents[3]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_processes(
    count: int, folder: Path, base: Path, *more: str, module: str = "rank_process"
) -> list[dict[str, Any]]:
    """What each process saw."""
    folder.mkdir(exist_ok=True)
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-m", f"tests.finetune_trainer.training.{module}", str(folder), str(base)]
    processes = [
        subprocess.Popen(
            [*command, *more],
            cwd=ROOT,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "TORCHDYNAMO_DISABLE": "1",
                **group,
                "RANK": str(number),
                "LOCAL_RANK": str(number),
            },
        )
        for number in range(count)
    ]
    assert [process.wait() for process in processes] == [0] * count
    return [json.loads((folder / f"seen-{number}.json").read_text()) for number in range(count)]


def test_two_processes_train_the_weights_of_one_also_after_a_stop_that_one_of_them_heard(
    base: Path, tmp_path: Path
):
    run(tmp_path / "one", base, **SETTINGS)

    stopped = run_processes(2, tmp_path / "two", base, "2")
    kept = list((tmp_path / "two" / "store" / checkpoints_folder(RUN_KEY)).iterdir())
    finished = run_processes(2, tmp_path / "two", base)

    assert ["told to stop after step 2 of 4" in seen["preempted"] for seen in stopped] == [True, True]
    assert len(kept) == 1
    assert finished == [{"resumed": 2}, {"resumed": 2}]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    weights, expected = adapter_weights(tmp_path / "two"), adapter_weights(tmp_path / "one")
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [2, 3])
def test_micro_batches_are_split_without_overlap_or_loss(count: int):
    plan: TrainingPlan = plan_of(12, effective_batch_size=6, micro_batch_size=1)

    for step in range(plan.total_steps):
        micro_batches = plan.step_micro_batches(step)
        shares = [Ranks(number, count).share(micro_batches) for number in range(count)]

        given = [id(batch) for share in shares for batch in share]
        assert sorted(given) == sorted(id(batch) for batch in micro_batches)
        sizes = [sum(len(batch) for batch in share) for share in shares]
        assert max(sizes) - min(sizes) <= max(len(batch) for batch in micro_batches)


def test_a_process_alone_does_all_in_order():
    micro_batches = plan_of(12).step_micro_batches(0)

    assert ALONE.share(micro_batches) == micro_batches
    assert ranks_of({}) == ALONE
    assert ranks_of({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Ranks(5, 8, 1)


def test_each_process_and_step_has_random_numbers_of_its_own_and_again_the_same():
    def drawn(number: int, step: int) -> float:
        Ranks(number, 2).seed(7, step)
        return float(torch.rand(()))

    values = [drawn(number, step) for number in (0, 1) for step in (0, 1)]

    assert len(set(values)) == 4
    assert [drawn(number, step) for number in (0, 1) for step in (0, 1)] == values
