from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.training.encoding import EncodedExample
from finetune_trainer.training.packing import TrainingPlan, pack


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


def test_a_common_beginning_lies_in_the_row_once():
    batch = pack([encoded("a", (1, 2, 3), (4, 9)), encoded("b", (1, 2, 5), (6, 9))])

    assert batch.token_ids == (1, 2, 3, 4, 9, 5, 6, 9)
    assert batch.positions == (0, 1, 2, 3, 4, 2, 3, 4)
    assert [branch.path for branch in batch.branches] == [(0, 1, 2, 3, 4), (0, 1, 5, 6, 7)]
    assert batch.example_tokens == 10


def test_only_answer_tokens_are_labels_and_each_is_predicted_by_the_token_before_it():
    batch = pack([encoded("a", (1, 2, 3), (4, 9)), encoded("b", (1, 2, 5), (6, 9))])

    predicted_by = [batch.token_ids[place] for place in batch.label_places]

    assert batch.labels == (4, 9, 6, 9)
    assert predicted_by == [3, 4, 5, 6]
    assert batch.answer_lengths == (2, 2)


def test_an_example_may_be_there_twice_and_then_counts_twice():
    batch = pack([encoded("a", (1, 2), (4, 9)), encoded("a", (1, 2), (4, 9))])

    assert batch.token_ids == (1, 2, 4, 9)
    assert batch.labels == (4, 9, 4, 9)
    assert batch.label_places == (1, 2, 1, 2)


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

    batch = pack(examples)

    in_token_order = sorted(examples, key=lambda example: (example.token_ids, example.id))
    for example, branch in zip(in_token_order, batch.branches, strict=True):
        assert tuple(batch.token_ids[place] for place in branch.path) == example.token_ids
        assert [batch.positions[place] for place in branch.path] == list(range(len(branch.path)))
    assert batch.labels == tuple(token for example in in_token_order for token in example.answer_ids)
    assert len(batch) == len(
        {example.token_ids[:n] for example in examples for n in range(1, len(example) + 1)}
    )


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

    counts = [len(batch.branches) for batch in micro_batches]
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


def test_the_order_of_an_epoch_is_made_once_and_not_for_each_step(monkeypatch):
    looked_at: list[str] = []
    original = EncodedExample.token_ids.fget
    monkeypatch.setattr(
        EncodedExample,
        "token_ids",
        property(lambda row: (looked_at.append(row.id), original(row))[1]),
    )
    plan = plan_of(100, epochs=3.0)

    for step in range(plan.total_steps):
        plan.step_examples(step)

    assert len(looked_at) == 3 * 100
