"""Which trials a pod of a sweep trains."""

from __future__ import annotations

import pytest

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.training.sweep_plan import PodShare, Trial, share_of

INDEX = {"JOB_COMPLETION_INDEX": "1"}


def trials(same_as: dict[int, int], count: int = 6) -> list[Trial]:
    return [Trial(n, count, TrainingSpec(), "", 6, same_as.get(n)) for n in range(1, count + 1)]


def test_trials_are_dealt_out_in_turn_and_each_is_trained_by_one_pod():
    dealt = [[trial.number for trial in PodShare(pod, 4).of(trials({}))] for pod in range(4)]

    assert dealt == [[1, 5], [2, 6], [3], [4]]


def test_trials_that_are_the_same_as_others_are_no_pods_turn():
    dealt = [[trial.number for trial in PodShare(pod, 2).of(trials({2: 1, 5: 4}))] for pod in range(2)]

    assert dealt == [[1, 4], [3, 6]]


@pytest.mark.parametrize(
    ("sweep", "environment", "on_cluster", "share"),
    [
        ({"rank": [2, 4], "parallelism": 2}, INDEX, True, PodShare(1, 2)),
        ({"rank": [2, 4], "parallelism": 16}, INDEX, True, PodShare(1, 2)),
        ({"rank": [2, 4]}, INDEX, True, PodShare()),
        ({"rank": [2, 4], "parallelism": 2}, {}, True, PodShare()),
        ({"rank": [2, 4], "parallelism": 2}, INDEX, False, PodShare()),
    ],
)
def test_a_pod_of_a_job_for_several_has_the_share_of_its_index(
    sweep: object, environment: dict[str, str], on_cluster: bool, share: PodShare
):
    training = TrainingSpec.model_validate({"sweep": sweep})

    assert share_of(training, environment, on_cluster=on_cluster) == share
