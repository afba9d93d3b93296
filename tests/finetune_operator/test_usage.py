"""What attempts cost, and what of it was lost."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.run_status import Attempt, FineTuneRunStatus, PodUse, Reason
from finetune_contract.stage_protocol import Stage
from finetune_operator.usage import NO_PRICES, Prices, accounted, usage, with_forgotten
from tests.finetune_operator.samples import a_run, an_attempt, at

GPU = a_run(resources={"train": {"gpu": {"count": 2}}}).spec
CPU = a_run().spec


def held(
    number: int, seconds: int, result: str = Reason.PREEMPTED, stage: Stage = Stage.TRAIN, **more: Any
) -> Attempt:
    pods = [PodUse(name=f"pod-{number}", since=at(0), seconds=seconds)]
    return an_attempt(stage, number, result, pods=pods, **more)


def test_gpus_count_and_a_stage_that_takes_one_takes_one():
    train, evaluate = accounted([held(0, 50, "Running"), held(0, 50, "Running", Stage.EVALUATE)], GPU)

    assert (train.gpu_seconds, evaluate.gpu_seconds) == (100, 50)
    assert accounted([held(0, 50)], CPU)[0].gpu_seconds == 0
    assert accounted([held(0, 50, "Running", Stage.DATASET)], GPU)[0].gpu_seconds == 0


@pytest.mark.parametrize(
    ("attempts", "lost"),
    [
        # nothing is lost while it runs, or when it succeeds
        ([held(0, 50, "Running")], [0]),
        ([held(0, 50, "Succeeded")], [0]),
        # told to stop, and its checkpoint is all that it did
        ([held(0, 50, exit_code=32)], [0]),
        # killed: lost, until the next one shows from where it goes on
        ([held(0, 50, exit_code=137, from_step=0, to_step=40)], [100]),
        (
            [
                held(0, 50, exit_code=137, from_step=0, to_step=40),
                held(1, 50, "Running", from_step=30, to_step=31),
            ],
            [25, 0],
        ),
        ([held(0, 50, exit_code=137, from_step=0, to_step=40), held(1, 5, "Running", from_step=0)], [100, 0]),
        # died before its first step
        (
            [held(0, 50, Reason.CUDA_OUT_OF_MEMORY, exit_code=30), held(1, 5, "Running", from_step=0)],
            [100, 0],
        ),
        # an evaluation begins anew
        ([held(0, 50, stage=Stage.EVALUATE, exit_code=32)], [50]),
    ],
)
def test_lost_is_what_no_later_attempt_went_on_from(attempts, lost):
    assert [attempt.lost_gpu_seconds for attempt in accounted(attempts, GPU)] == lost


def test_what_fell_off_the_list_still_counts():
    attempts = accounted([held(0, 50, exit_code=137), held(1, 30, exit_code=32), held(2, 10, "Running")], GPU)
    whole = FineTuneRunStatus(attempts=attempts)
    shortened = FineTuneRunStatus(
        attempts=attempts[2:], forgotten=with_forgotten(with_forgotten([], attempts[0]), attempts[1])
    )

    assert usage(shortened, GPU, NO_PRICES) == usage(whole, GPU, NO_PRICES)
    assert usage(whole, GPU, NO_PRICES).gpu_seconds == 180
    assert usage(whole, GPU, NO_PRICES).held_seconds == 90


def test_a_price_is_shown_where_one_is_known():
    status = FineTuneRunStatus(attempts=accounted([held(0, 1800)], GPU))
    prices = Prices({"nvidia.com/gpu": 2.49}, "EUR")

    assert usage(status, GPU, prices).cost == "2.49 EUR"
    assert usage(status, GPU, NO_PRICES).cost == ""
    assert usage(status, GPU, Prices({"amd.com/gpu": 1.0}, "EUR")).cost == ""
