"""The rows that trainings are timed with have the shape of the dataset that they stand for."""

from __future__ import annotations

import csv

import pytest

from benchmarks.training_rows import FIELDS, SITE_ROWS, largest_plan, site_rows, unshared_rows
from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.training.packing import common_beginning

TRAINING = TrainingSpec(max_steps=3, epochs=100)


def test_rows_of_a_site_begin_alike_as_far_as_the_file_says():
    with SITE_ROWS.open(encoding="utf-8", newline="") as file:
        told = [tuple(int(line[name]) for name in FIELDS) for line in csv.DictReader(file)]
    rows = site_rows(vocabulary=32000)

    assert len(rows) == len(told)
    before: tuple[int, ...] = ()
    for place, shared, prompt, answer in told:
        row = rows[place]
        assert (len(row.prompt_ids), len(row.answer_ids)) == (prompt, answer)
        assert common_beginning(before, row.token_ids) >= shared
        before = row.token_ids


@pytest.mark.parametrize("limit", [1024, 8192])
def test_a_step_holds_as_many_examples_as_no_row_is_too_long_for(limit: int):
    rows = unshared_rows(400, vocabulary=32000)

    plan = largest_plan(rows, TRAINING, limit)

    longest = max(len(batch) for step in range(plan.total_steps) for batch in plan.step_micro_batches(step))
    assert longest <= limit
    assert longest > 0.7 * limit


def test_what_several_examples_have_in_common_is_computed_once():
    plan = largest_plan(site_rows(vocabulary=32000), TRAINING, 8192)

    (batch,) = plan.step_micro_batches(0)

    assert batch.example_tokens > 1.5 * len(batch)
