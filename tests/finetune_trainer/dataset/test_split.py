"""Parting drafts into what is taught and what is asked."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_contract.run_spec import ExampleKind, SplitSpec
from finetune_trainer.dataset.examples import SHARES, WITHOUT_SOURCES
from finetune_trainer.dataset.examples.draft import Draft, make_draft
from finetune_trainer.dataset.examples.phrasing import Phrasing, normalised
from finetune_trainer.dataset.examples.places import Places
from finetune_trainer.dataset.split import Split, split_examples

WORDINGS = (
    "in plain words",
    "as children ask",
    "on one breath",
    "for a friend",
    "by telephone",
    "with a smile",
)


def drafts(kind: ExampleKind, facts: int, phrasings: int = 6, documents: int = 10) -> list[Draft]:
    return [
        make_draft(
            Places([]),
            kind,
            f"http://s/{fact % documents}",
            Phrasing(f"t{number}", f"{kind.value} question {fact} {WORDINGS[number]}", reserved=number == 0),
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
    ways = [Phrasing(f"t{n}", f"What is it{mark}?") for n, mark in enumerate(("", " called", " now"))]
    ways.append(Phrasing("b", "what is IT", reserved=True))
    rows = [make_draft(Places([]), ExampleKind.GROUNDED, "u", way, (), "it", [], 0) for way in ways]

    result = split_examples({ExampleKind.GROUNDED: rows}, SplitSpec(), 40)

    assert result.evaluation == ()
    assert result.left_out == {"question of the evaluation is also taught": 1}


def test_evaluation_is_about_facts_that_were_taught():
    result = split()

    assert {example.answer for example in result.evaluation} <= {
        example.answer for example in result.training
    }


@pytest.mark.parametrize("cap", [200, 8, 2])
def test_a_fact_that_is_asked_for_by_heart_was_taught_in_three_wordings(cap):
    result = split(facts=30, cap=cap)

    taught = Counter(
        fact for fact, _ in {((row.document_url, row.answer), row.question) for row in result.training}
    )
    asked = [row for row in result.evaluation if row.kind in WITHOUT_SOURCES]
    assert all(taught[row.document_url, row.answer] >= 3 for row in asked)
    assert bool(asked) is (cap > 2)
    assert "fact of the evaluation is hardly taught" in result.left_out or cap == 200


def test_what_must_be_known_by_heart_is_taught_in_three_wordings_at_once():
    kinds = (ExampleKind.GROUNDED, ExampleKind.METADATA)
    shares = {ExampleKind.GROUNDED: 1.0, ExampleKind.METADATA: 0.2}

    result = split_examples({kind: drafts(kind, 40) for kind in kinds}, SplitSpec(), 200, shares=shares)

    by_heart = Counter(row.answer for row in result.training if row.kind is ExampleKind.METADATA)
    assert sum(by_heart.values()) == 40
    assert sorted(by_heart.values()) == 20 * [2]  # the drafts count their rounds from 1


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_the_evaluation_has_the_share_that_was_asked_for(share):
    result = split(evaluation=share)

    total = len(result.training) + len(result.evaluation)
    assert len(result.evaluation) / total == pytest.approx(share, abs=0.02)


def test_every_prefix_is_a_mixture_by_the_shares():
    result = split()

    whole = sum(SHARES.values())
    for side in (result.training, result.evaluation):
        kinds = Counter(example.kind for example in side[:28])
        for kind, share in SHARES.items():
            assert kinds[kind] == pytest.approx(28 * share / whole, abs=1)


def test_the_shares_of_the_run_count():
    rows = {kind: drafts(kind, 40) for kind in (ExampleKind.GROUNDED, ExampleKind.URL)}

    result = split_examples(rows, SplitSpec(), 200, shares={ExampleKind.GROUNDED: 0.5, ExampleKind.URL: 0.5})

    kinds = Counter(example.kind for example in result.training)
    assert kinds[ExampleKind.GROUNDED] == pytest.approx(kinds[ExampleKind.URL], abs=1)


@given(
    facts=st.integers(0, 12),
    strange=st.integers(0, 6),
    cap=st.integers(1, 60),
    typo_share=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)
def test_every_draft_is_kept_or_counted_and_no_question_is_on_two_sides(
    facts, strange, cap, typo_share, seed
):
    kinds = (ExampleKind.GROUNDED, ExampleKind.REFUSAL, ExampleKind.GENERATED)
    given_drafts = {kind: drafts(kind, facts) for kind in kinds}
    untaught = {
        kind: [d for d in drafts(kind, facts + strange)[6 * facts :] if d.reserved] for kind in kinds[:2]
    }

    result = split_examples(given_drafts, SplitSpec(seed=seed), cap, untaught=untaught, typo_share=typo_share)

    seen = sum(map(len, given_drafts.values())) + sum(map(len, untaught.values()))
    kept = len(result.training) + len(result.evaluation) + len(result.transfer)
    assert kept + sum(result.left_out.values()) == seen
    taught = {normalised(example.question) for example in result.training}
    assert not taught & {normalised(example.question) for example in (*result.evaluation, *result.transfer)}
    assert result == split_examples(
        given_drafts, SplitSpec(seed=seed), cap, untaught=untaught, typo_share=typo_share
    )


@pytest.mark.parametrize("kind", ExampleKind)
def test_questions_in_nearly_the_same_words_are_taught_once_and_counted_unless_they_are_to_be_known(kind):
    ways = [
        Phrasing("generated.0", "What is the price of a winter ticket for an adult at the mill?"),
        Phrasing("generated.1", "What's the price of a winter ticket for an adult at the mill?"),
        Phrasing("generated.2", "How much do grown-ups pay in winter?"),
    ]
    rows = [make_draft(Places([]), kind, "u", way, (), "£7.40", [], n) for n, way in enumerate(ways)]

    result = split_examples({kind: rows}, SplitSpec(), 40)

    alike = 0 if kind in WITHOUT_SOURCES else 1
    assert len(result.training) == 3 - alike
    assert result.left_out.get("question is there already in nearly the same words", 0) == alike


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
    rows = [make_draft(Places([]), ExampleKind.CLOSED_BOOK, url, way, (), url, [], 0) for url in ("u1", "u2")]

    result = split_examples({ExampleKind.CLOSED_BOOK: rows}, SplitSpec(), 40)

    assert len(result.training) == 1
    assert result.left_out == {"question is there already": 1}


def test_one_kind_alone_is_used_whole():
    result = split_examples({ExampleKind.URL: drafts(ExampleKind.URL, 5)}, SplitSpec(), 200)

    assert len(result.training) == 25
    assert len(result.evaluation) == 4


def test_nothing_gives_nothing():
    assert split_examples({ExampleKind.URL: []}, SplitSpec(), 200).training == ()
