"""What is tried next when the GPU's memory runs out."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.training_overlay import with_overlay
from finetune_operator.memory_ladder import as_written, changes_in_words, may_help, rung, rungs
from tests.finetune_operator.samples import a_run


def a_spec(policy: dict[str, Any] | None = None, **training: Any) -> FineTuneRunSpec:
    return a_run(training=training, policy={"outOfMemory": policy or {}}).spec


def steps(spec: FineTuneRunSpec) -> list[tuple[int, bool, int]]:
    return [(r.micro_batch_size, r.gradient_checkpointing, r.sequence_length) for r in rungs(spec)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            a_spec(effectiveBatchSize=16, microBatchSize=4, sequenceLength=1024),
            [(2, False, 1024), (1, False, 1024), (1, True, 1024)],
        ),
        (
            a_spec(effectiveBatchSize=12, microBatchSize=6),
            [(3, False, 1024), (1, False, 1024), (1, True, 1024)],
        ),
        (
            a_spec(effectiveBatchSize=15, microBatchSize=15),
            [(5, False, 1024), (1, False, 1024), (1, True, 1024)],
        ),
        (a_spec(microBatchSize=1, gradientCheckpointing=True), []),
        (
            a_spec({"minSequenceLength": 300}, microBatchSize=1, gradientCheckpointing=True),
            [(1, True, 512), (1, True, 300)],
        ),
        (a_spec({"strategy": "Fail"}), []),
        (
            a_spec({"minSequenceLength": 2048}, microBatchSize=2),
            [(1, False, 1024), (1, True, 1024)],
        ),
    ],
)
def test_the_micro_batch_gives_way_first_and_the_sequence_only_where_it_may(spec, expected):
    assert steps(spec) == expected


def test_every_rung_leaves_the_effective_batch_whole():
    for batch in range(1, 65):
        for micro in (size for size in range(1, batch + 1) if batch % size == 0):
            for step in rungs(a_spec(effectiveBatchSize=batch, microBatchSize=micro)):
                assert batch % step.micro_batch_size == 0


def test_a_rung_is_what_the_trainer_then_reads():
    spec = a_spec(microBatchSize=4)
    overlay = rung(spec, 2)
    assert overlay is not None

    trained = with_overlay(spec, overlay.to_json())

    assert as_written(trained.training) == overlay
    assert trained.training.effective_batch_size == spec.training.effective_batch_size
    assert with_overlay(spec, "") is spec


def test_the_ladder_ends_and_does_not_help_a_model_that_is_too_large():
    spec = a_spec(microBatchSize=2)

    assert rung(spec, 0) is None
    assert [may_help(spec, n, "spec.training.microBatchSize: 2 need more") for n in (1, 2, 3)] == [
        True,
        True,
        False,
    ]
    assert not may_help(spec, 1, "spec.resources.train.gpu: the 4-bit base model does not fit the GPU")


def test_a_rung_says_what_it_changes():
    spec = a_spec(microBatchSize=4)
    first, last = rungs(spec)[0], rungs(spec)[-1]

    assert changes_in_words(as_written(spec.training), first) == "spec.training.microBatchSize: 4 -> 2"
    assert changes_in_words(rungs(spec)[1], last) == "spec.training.gradientCheckpointing: false -> true"
