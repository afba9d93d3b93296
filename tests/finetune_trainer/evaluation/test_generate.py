from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.evaluation.generate import MOST_ROWS_AT_ONCE, MOST_TOKENS_AT_ONCE, batches


def test_questions_of_like_length_are_asked_together():
    assert batches([100, 8000, 120, 7000, 110]) == [[0, 4, 2], [3, 1]]


def test_a_question_longer_than_all_that_fits_is_asked_alone():
    assert batches([MOST_TOKENS_AT_ONCE + 1, 10]) == [[1], [0]]


@given(st.lists(st.integers(1, 2 * MOST_TOKENS_AT_ONCE), max_size=200))
def test_every_question_is_asked_once_in_batches_that_fit(lengths: list[int]):
    made = batches(lengths)

    assert sorted(row for batch in made for row in batch) == list(range(len(lengths)))
    for batch in made:
        filled = len(batch) * max(lengths[row] for row in batch)
        assert len(batch) <= MOST_ROWS_AT_ONCE
        assert filled <= MOST_TOKENS_AT_ONCE or len(batch) == 1
