"""Parting drafts into what is taught and what is asked."""

from __future__ import annotations

from collections import Counter

import pytest

from finetune_contract.run_spec import ExampleKind, SplitSpec
from finetune_trainer.dataset.examples.draft import Draft, make_draft
from finetune_trainer.dataset.examples.phrasing import Phrasing, normalised
from finetune_trainer.dataset.split import Split, split_examples


def drafts(kind: ExampleKind, facts: int, phrasings: int = 6, documents: int = 10) -> list[Draft]:
    return [
        make_draft(
            kind,
            f"http://s/{fact % documents}",
            Phrasing(f"t{number}", f"{kind.value} question {fact} in words {number}", reserved=number == 0),
            (),
            f"answer {fact}",
            [],
            number,
        )
        for fact in range(facts)
        for number in range(phrasings)
    ]


def split(facts: int = 40, cap: int = 200, **settings: object) -> Split:
    return split_examples({kind: drafts(kind, facts) for kind in ExampleKind}, SplitSpec(**settings), cap)  # type: ignore[arg-type]


def test_no_question_is_on_both_sides():
    result = split()

    taught = {normalised(example.question) for example in result.training}
    assert result.evaluation
    assert not taught & {normalised(example.question) for example in result.evaluation}


def test_reserved_phrasings_are_never_taught():
    result = split()

    assert "t0" not in {example.template for example in result.training}
    assert {example.template for example in result.evaluation} == {"t0"}


def test_a_reserved_question_that_is_taught_elsewhere_is_left_out():
    same = Phrasing("a", "What is it?"), Phrasing("b", "what is IT", reserved=True)
    rows = [make_draft(ExampleKind.GROUNDED, "u", way, (), "it", [], 0) for way in same]

    result = split_examples({ExampleKind.GROUNDED: rows}, SplitSpec(), 40)

    assert result.evaluation == ()
    assert result.left_out == {"question of the evaluation is also taught": 1}


def test_evaluation_is_about_facts_that_were_taught():
    result = split()

    assert {example.answer for example in result.evaluation} <= {
        example.answer for example in result.training
    }


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_the_evaluation_has_the_share_that_was_asked_for(share):
    result = split(evaluation=share)

    total = len(result.training) + len(result.evaluation)
    assert len(result.evaluation) / total == pytest.approx(share, abs=0.02)


def test_every_prefix_is_a_mixture_by_the_shares():
    result = split()

    for side in (result.training, result.evaluation):
        kinds = Counter(example.kind for example in side[:20])
        assert kinds[ExampleKind.GROUNDED] == pytest.approx(10, abs=1)
        assert kinds[ExampleKind.CLOSED_BOOK] == pytest.approx(5, abs=1)
        assert kinds[ExampleKind.REFUSAL] == pytest.approx(3, abs=1)
        assert kinds[ExampleKind.URL] == pytest.approx(2, abs=1)


def test_the_first_rounds_cover_every_fact():
    result = split()

    grounded = [example for example in result.training if example.kind == ExampleKind.GROUNDED]
    assert len({example.answer for example in grounded[:40]}) == 40


def test_a_long_document_does_not_drown_the_others():
    result = split(cap=7)

    counts = Counter(example.document_url for example in result.training)
    assert max(counts.values()) == 7
    assert "document has more than maxExamplesPerDocument" in result.left_out


def test_a_document_more_moves_no_other_example_to_the_other_side():
    some = split_examples({ExampleKind.GROUNDED: drafts(ExampleKind.GROUNDED, 40)}, SplitSpec(), 200)
    more = split_examples({ExampleKind.GROUNDED: drafts(ExampleKind.GROUNDED, 44)}, SplitSpec(), 200)

    assert {example.id for example in some.training} <= {example.id for example in more.training}


def test_the_same_prompt_is_taught_once():
    way = Phrasing("a", "What is it?")
    rows = [make_draft(ExampleKind.CLOSED_BOOK, url, way, (), url, [], 0) for url in ("u1", "u2")]

    result = split_examples({ExampleKind.CLOSED_BOOK: rows}, SplitSpec(), 40)

    assert len(result.training) == 1
    assert result.left_out == {"question is there already": 1}


def test_one_kind_alone_is_used_whole():
    result = split_examples({ExampleKind.URL: drafts(ExampleKind.URL, 5)}, SplitSpec(), 200)

    assert len(result.training) == 25
    assert len(result.evaluation) == 4


def test_nothing_gives_nothing():
    assert split_examples({ExampleKind.URL: []}, SplitSpec(), 200) == Split((), (), {})
