from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.training.encoding import EncodedExample
from finetune_trainer.training.packing import TrainingPlan, build_segment, build_segments


def encoded(name: str, prompt: tuple[int, ...], answer: tuple[int, ...]) -> EncodedExample:
    return EncodedExample(name, prompt, answer)


def plan_of(rows: int, **changes: object) -> TrainingPlan:
    examples = tuple(encoded(f"{n:03d}", (1, 2, 3, n // 3, n), (n, 9)) for n in range(rows))
    settings = {
        "epochs": 2.0,
        "effective_batch_size": 4,
        "micro_batch_size": 2,
        "max_steps": 0,
        "seed": 7,
        **changes,
    }
    return TrainingPlan(rows=examples, **settings)  # type: ignore[arg-type]


def test_a_common_beginning_lies_in_the_segment_once():
    segment = build_segment([encoded("a", (1, 2, 3), (4, 9)), encoded("b", (1, 2, 5), (6, 9))])

    assert segment.token_ids == (1, 2, 3, 4, 9, 5, 6, 9)
    assert segment.positions == (0, 1, 2, 3, 4, 2, 3, 4)
    assert segment.paths == ((0, 1, 2, 3, 4), (0, 1, 5, 6, 7))


def test_only_answer_tokens_are_labels_and_each_is_predicted_by_the_token_before_it():
    segment = build_segment([encoded("a", (1, 2, 3), (4, 9)), encoded("b", (1, 2, 5), (6, 9))])

    predicted_by = [segment.token_ids[place] for place in segment.label_places]

    assert segment.labels == (4, 9, 6, 9)
    assert predicted_by == [3, 4, 5, 6]
    assert segment.answer_lengths == (2, 2)


def test_examples_that_begin_differently_do_not_share_a_segment():
    segments = build_segments([encoded("a", (1, 2, 3, 4), (9,)), encoded("b", (1, 7, 8, 6), (9,))])

    assert [len(segment.paths) for segment in segments] == [1, 1]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 3), min_size=1, max_size=8),
            st.lists(st.integers(0, 3), min_size=1, max_size=4),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_every_example_can_be_read_back_from_its_path(rows: list[tuple[list[int], list[int]]]):
    examples = [encoded(str(n), tuple(prompt), tuple(answer)) for n, (prompt, answer) in enumerate(rows)]

    segment = build_segment(examples)

    for given_example, path in zip(examples, segment.paths, strict=True):
        assert tuple(segment.token_ids[place] for place in path) == given_example.token_ids
        assert [segment.positions[place] for place in path] == list(range(len(path)))
    assert len(segment.labels) == sum(len(e.answer_ids) for e in examples)


def test_an_epoch_shows_every_row_once():
    plan = plan_of(12)

    first_epoch = [example.id for step in range(3) for example in plan.step_examples(step)]

    assert sorted(first_epoch) == [f"{n:03d}" for n in range(12)]


def test_epochs_differ_in_order_and_a_seed_fixes_them():
    plan = plan_of(12)

    epochs = [[e.id for step in steps for e in plan.step_examples(step)] for steps in (range(3), range(3, 6))]

    assert epochs[0] != epochs[1]
    assert plan.step_examples(4) == plan_of(12).step_examples(4)
    assert plan.step_examples(4) != plan_of(12, seed=8).step_examples(4)


def test_a_step_is_cut_into_micro_batches_that_hold_all_its_examples():
    plan = plan_of(12, effective_batch_size=6, micro_batch_size=4)

    micro_batches = plan.step_micro_batches(0)

    counts = [sum(len(segment.paths) for segment in segments) for segments in micro_batches]
    assert sorted(counts) == [2, 4]


def test_a_run_shorter_than_an_epoch_takes_the_first_rows():
    plan = plan_of(12, epochs=0.67)

    trained = {example.id for step in range(plan.total_steps) for example in plan.step_examples(step)}

    assert trained == {f"{n:03d}" for n in range(8)}


def test_steps_follow_from_epochs_unless_a_limit_is_lower():
    assert plan_of(12).total_steps == 6
    assert plan_of(12, max_steps=4).total_steps == 4
    assert plan_of(12, max_steps=40).total_steps == 6
    assert plan_of(2, epochs=0.1).total_steps == 1
