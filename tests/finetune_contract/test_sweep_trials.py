"""A sweep: which trials it makes, in which order, and which sweeps are refused."""

from __future__ import annotations

import pytest

from finetune_contract.run_document import InvalidRunDocument, parse_spec
from finetune_contract.run_spec import FineTuneRunSpec, TrainingSpec
from finetune_contract.sweep_trials import as_trained, pods_side_by_side, settings_in_words, trials_of


def spec_with(sweep: object, gpu: object = None) -> FineTuneRunSpec:
    resources: dict[str, object] = {} if gpu is None else {"resources": {"train": {"gpu": gpu}}}
    return parse_spec(
        {
            "baseModel": {"uri": "hf://a/b"},
            "dataset": {"sources": [{"name": "site", "wordpress": {"url": "https://example.org"}}]},
            "store": {"s3": {"bucket": "models"}},
            "training": {"sweep": sweep},
            **resources,
        }
    )


def test_trials_are_all_combinations_in_the_order_of_the_spec() -> None:
    training = spec_with({"rank": [8, 16], "learningRate": [0.0002, 0.0001]}).training

    trials = trials_of(training)

    assert [settings_in_words(training, trial) for trial in trials] == [
        "learningRate 0.0002, rank 8",
        "learningRate 0.0002, rank 16",
        "learningRate 0.0001, rank 8",
        "learningRate 0.0001, rank 16",
    ]
    assert pods_side_by_side(training) == 1
    assert trials[2] == TrainingSpec.model_validate({"learningRate": 0.0001, "lora": {"rank": 8}})


def test_every_trial_is_a_training_that_could_have_been_written_so() -> None:
    sweep = {
        "learningRate": [0.1],
        "rank": [1, 512],
        "alpha": [1],
        "epochs": [1, 2.5],
        "embeddingNoise": [0, 5],
    }

    for trial in trials_of(spec_with(sweep).training):
        assert trial.sweep is None
        assert TrainingSpec.model_validate(trial.to_wire()) == trial


def test_a_spec_as_it_was_trained_has_the_settings_of_the_chosen_trial() -> None:
    spec = spec_with({"rank": [8, 64]})

    assert as_trained(spec, 2).training == TrainingSpec.model_validate({"lora": {"rank": 64}})
    assert as_trained(spec, None) is spec


def test_a_training_without_a_sweep_is_its_only_trial() -> None:
    assert trials_of(TrainingSpec()) == [TrainingSpec()]
    assert pods_side_by_side(TrainingSpec()) == 1


@pytest.mark.parametrize(("asked", "pods"), [(1, 1), (3, 3), (4, 4), (16, 4)])
def test_no_more_pods_share_a_sweep_than_it_has_trials(asked: int, pods: int) -> None:
    sweep = {"rank": [8, 16], "alpha": [8, 16], "parallelism": asked}

    training = spec_with(sweep, {"count": 1}).training

    assert pods_side_by_side(training) == pods
    assert trials_of(training) == trials_of(spec_with(sweep | {"parallelism": 1}).training)


@pytest.mark.parametrize(
    ("sweep", "line"),
    [
        (
            {"learningRate": [1e-4, 2e-4, 3e-4], "rank": [4, 8, 16], "epochs": [1, 2]},
            "spec.training.sweep: 3 x 3 x 2 values make 18 trials; at most 16: take values away",
        ),
        ({}, "spec.training.sweep: has nothing to compare; name at least two values of a setting"),
        ({"rank": [8]}, "spec.training.sweep: has nothing to compare; name at least two values of a setting"),
        (
            {"rank": [8, 16], "parallelism": 17},
            "spec.training.sweep.parallelism: 17 is over 16; choose a whole number 1 to 16",
        ),
        (
            {"parallelism": 4},
            "spec.training.sweep: has nothing to compare; name at least two values of a setting",
        ),
        ({"epochs": [1, 1.0]}, "spec.training.sweep.epochs: 1.0 is there twice; name each once"),
        ({"rank": [8, 0]}, "spec.training.sweep.rank[1]: 0 is under 1; choose a whole number 1 to 512"),
        (
            {"learningRate": [0.5, 0.01]},
            "spec.training.sweep.learningRate[0]: 0.5 is over 0.1; choose more than 0 and at most 0.1",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_with_what_to_change(sweep: object, line: str) -> None:
    with pytest.raises(InvalidRunDocument) as caught:
        spec_with(sweep)

    assert caught.value.lines == (line,)


@pytest.mark.parametrize("gpu", [{"count": 2}, {"nodes": 2}])
def test_a_sweep_on_several_gpus_is_refused(gpu: object) -> None:
    assert spec_with({"rank": [8, 16]}, {"count": 1}).training.sweep is not None

    with pytest.raises(InvalidRunDocument) as caught:
        spec_with({"rank": [8, 16]}, gpu)

    assert caught.value.lines == (
        "spec.training.sweep: trains each trial on one GPU, and resources.train.gpu asks for 2; set its count and "
        "nodes to 1 (training.sweep.parallelism trains trials side by side), or leave the sweep out",
    )
