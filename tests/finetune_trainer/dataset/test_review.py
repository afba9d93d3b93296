"""Corrections and removals by row id; what no longer fits is reported and does no harm."""

from __future__ import annotations

import pytest

from finetune_contract.artifacts import ChatMessage, Example
from finetune_contract.prompt import REFUSAL
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.review import (
    Outcome,
    Reviewed,
    apply_again,
    apply_review,
    sheet_rows,
    summary_in_words,
    unsaid,
)
from finetune_trainer.dataset.review_sheet import Judgement, Verdict, read_sheet, write_sheet
from finetune_trainer.errors import DataRejected

VERSIONS = {"http://s/1": "new"}
PROMPT = "Answer briefly.\n\n[1] Prices\nA ticket costs £7.\n[2] Dogs\nDogs are welcome.\n\nQuestion: What is a ticket?"


def a_row(name: str = "a", answer: str = "A ticket costs £7. [1]") -> Example:
    return Example(
        id=name * 8,
        kind=ExampleKind.GROUNDED,
        document_url="http://s/1",
        template="t",
        question="What is a ticket?",
        prompt=[ChatMessage(role="user", content=PROMPT)],
        answer=answer,
        must_contain=["£7"],
    )


def said(verdict: Verdict, corrected: str = "", name: str = "a", **changes: object) -> Judgement:
    return Judgement.model_validate(
        {"id": name * 8, "verdict": verdict, "corrected_answer": corrected, "line": 2, **changes}
    )


def apply(*judgements: Judgement) -> Reviewed:
    return apply_review(
        judgements, ([a_row(), a_row("b")], [a_row("c")]), VERSIONS, "spec.dataset.reviewFile"
    )


def test_a_correction_replaces_the_answer_and_keeps_the_citation() -> None:
    row = apply(said(Verdict.CORRECT, "A ticket costs £8.")).sides[0][0]

    assert (row.answer, row.must_contain) == ("A ticket costs £8. [1]", ["£8"])
    assert row.prompt == a_row().prompt


def test_the_strings_that_a_person_names_are_what_the_answer_must_say() -> None:
    judgement = said(Verdict.CORRECT, "Dogs are welcome [2]", must_contain=["welcome", "£7"])

    row = apply(judgement).sides[0][0]

    assert (row.answer, row.must_contain) == ("Dogs are welcome [2]", ["welcome"])


def test_the_strings_of_a_row_that_is_kept_are_those_that_a_person_names() -> None:
    reviewed = apply(said(Verdict.KEEP, answer=a_row().answer, must_contain=["A ticket", "costs"]))

    assert reviewed.sides[0][0] == a_row().model_copy(update={"must_contain": ["A ticket", "costs"]})
    assert reviewed.count(Outcome.KEPT) == 1


@pytest.mark.parametrize("seen", [[], ["£7"]])
def test_a_row_that_is_kept_as_it_was_shown_stays_as_it_is(seen: list[str]) -> None:
    assert apply(said(Verdict.KEEP, must_contain=seen)).sides[0][0] == a_row()


def test_a_string_with_the_separator_in_it_survives_a_keep() -> None:
    row = a_row(answer="Run `cut | sort` first. [1]").model_copy(update={"must_contain": ["cut | sort"]})
    judgements = read_sheet(write_sheet([said(Verdict.KEEP, must_contain=row.must_contain)]), "sheet")

    assert apply_review(judgements, ([row],), VERSIONS, "sheet").sides[0][0] == row


@pytest.mark.parametrize(
    "judgement",
    [
        said(Verdict.KEEP, must_contain=["£7", "oak"]),
        said(Verdict.KEEP, must_contain=["tick"]),
        said(Verdict.CORRECT, "It costs £8.", must_contain=["£7", "oak"]),
        said(Verdict.CORRECT, REFUSAL, must_contain=["oak"]),
    ],
)
def test_a_string_that_the_answer_does_not_contain_names_its_line(judgement: Judgement) -> None:
    words = r"spec.dataset.reviewFile: line 2: must_contain names '(oak|tick)', and the answer does not"

    with pytest.raises(DataRejected, match=words):
        apply(judgement)


def test_strings_for_an_answer_that_is_no_longer_given_are_reported_and_not_applied() -> None:
    reviewed = apply(said(Verdict.KEEP, answer="A ticket costs £5. [1]", must_contain=["£5"]))

    assert reviewed.rows[0].outcome is Outcome.STALE
    assert sheet_rows(reviewed.sides[0], VERSIONS, reviewed.rows)[0].must_contain == ["£7"]


def test_a_correction_may_be_a_refusal() -> None:
    row = apply(said(Verdict.CORRECT, REFUSAL)).sides[0][0]

    assert (row.answer, row.must_contain) == (REFUSAL, [])


def test_a_row_is_removed_from_the_side_that_it_is_on() -> None:
    reviewed = apply(said(Verdict.REMOVE, name="b"), said(Verdict.REMOVE, name="c"))

    assert [[row.id[0] for row in side] for side in reviewed.sides] == [["a"], []]
    assert reviewed.count(Outcome.REMOVED) == 2


def test_a_row_that_is_no_more_is_reported() -> None:
    reviewed = apply(said(Verdict.REMOVE, name="z"))

    assert [row.outcome for row in reviewed.rows] == [Outcome.GONE]
    assert len(reviewed.sides[0]) == 2
    assert summary_in_words(reviewed.rows) == "1 not applied: there is no such row any more"


def test_a_correction_of_another_answer_is_stale_and_not_applied() -> None:
    reviewed = apply(said(Verdict.CORRECT, "£6", answer="A ticket costs £5. [1]"))

    assert reviewed.rows[0].outcome is Outcome.STALE
    assert reviewed.sides[0][0] == a_row()


def test_a_correction_of_a_changed_document_is_applied_and_reported() -> None:
    reviewed = apply(said(Verdict.CORRECT, "It costs £8.", answer=a_row().answer, document_version="old"))

    assert reviewed.rows[0].outcome is Outcome.DOUBTFUL
    assert reviewed.sides[0][0].answer == "It costs £8. [1]"


def test_a_correction_that_cites_what_is_not_shown_names_its_line() -> None:
    with pytest.raises(DataRejected, match=r"spec.dataset.reviewFile: line 2: corrected_answer cites \[3\]"):
        apply(said(Verdict.CORRECT, "It costs £8. [3]"))


def test_the_next_sheet_carries_what_was_said_and_gives_the_same_dataset() -> None:
    judgements = [
        said(Verdict.CORRECT, "It costs £8."),
        said(Verdict.REMOVE, name="b", question="What is a ticket?"),
        said(Verdict.KEEP, name="c", must_contain=["ticket"]),
    ]
    first = apply(*judgements)
    left = [row for side in first.sides for row in side]

    sheet = read_sheet(write_sheet(sheet_rows(left, VERSIONS, first.rows)), "sheet")
    second = apply(*sheet)

    assert second.sides == first.sides
    assert {row.judgement.id: row.outcome for row in second.rows} == {
        row.judgement.id: row.outcome for row in first.rows
    }


def test_the_next_sheet_carries_strings_that_no_build_has_seen() -> None:
    lines = [said(Verdict.KEEP, must_contain=["ticket"]), said(Verdict.CORRECT, "It costs £8.", "b")]
    read = apply_again(lines, [a_row(), a_row("b")], (), VERSIONS, "sheet")

    sheet = sheet_rows([a_row(), a_row("b")], VERSIONS, read)

    assert [line.must_contain for line in sheet] == [["ticket"], ["£7"]]


def test_a_sheet_that_was_built_is_read_again_with_the_strings_that_it_was_made_with() -> None:
    judgements = [said(Verdict.CORRECT, "It costs £8.", answer=a_row().answer, must_contain=["£7"])]
    first = apply(*judgements)

    again = apply_again(judgements, first.sides[0], first.rows, VERSIONS, "sheet")

    assert [row.outcome for row in again] == [Outcome.CORRECTED]


def test_what_is_stale_is_to_be_checked_in_the_next_sheet_and_changes_nothing() -> None:
    first = apply(said(Verdict.CORRECT, "£6", answer="A ticket costs £5. [1]", note="mine"))

    lines = sheet_rows([a_row()], VERSIONS, first.rows)
    again = apply(*read_sheet(write_sheet(lines), "sheet"))

    assert (lines[0].verdict, lines[0].answer) == (Verdict.CHECK, a_row().answer)
    assert lines[0].note.startswith("mine (not applied")
    assert again.sides[0][0] == a_row()


def test_a_sheet_means_the_same_after_the_build_that_applied_it() -> None:
    judgements = [
        said(Verdict.CORRECT, "It costs £8.", answer=a_row().answer),
        said(Verdict.REMOVE, name="b"),
        said(Verdict.KEEP, name="c"),
        said(Verdict.REMOVE, name="z"),
    ]
    first = apply(*judgements)
    left = [row for side in first.sides for row in side]

    again = apply_again(judgements, left, first.rows, VERSIONS, "sheet")

    assert [row.outcome for row in again] == [row.outcome for row in first.rows]
    assert [row.outcome for row in again] == [
        Outcome.CORRECTED,
        Outcome.REMOVED,
        Outcome.KEPT,
        Outcome.GONE,
    ]


def test_a_row_that_was_taken_out_may_be_taken_back() -> None:
    first = apply(said(Verdict.REMOVE, name="b"))
    left = [row for side in first.sides for row in side]

    again = apply_again([said(Verdict.KEEP, name="b")], left, first.rows, VERSIONS, "sheet")

    assert [row.outcome for row in again] == [Outcome.KEPT]


def test_a_note_without_a_verdict_stays_though_its_row_is_not_in_the_sheet() -> None:
    first = apply(said(Verdict.OPEN, note="ask Rosa", name="b"))

    lines = sheet_rows([a_row()], VERSIONS, first.rows)

    assert [(line.id[0], line.note, line.question) for line in lines] == [
        ("a", "", "What is a ticket?"),
        ("b", "ask Rosa", "What is a ticket?"),
    ]


def test_what_nobody_has_read_is_told_apart() -> None:
    read, changed = said(Verdict.KEEP), said(Verdict.KEEP, name="b")

    assert unsaid([read, changed.model_copy(update={"verdict": Verdict.REMOVE})], [read, changed]) == [
        changed.model_copy(update={"verdict": Verdict.REMOVE})
    ]


def test_other_strings_are_something_that_nobody_has_read() -> None:
    known = said(Verdict.KEEP, must_contain=["a | b", "£7"])
    read = read_sheet(write_sheet([known]), "sheet")
    other = known.model_copy(update={"must_contain": ["£7"]})

    assert unsaid([*read, other], [known]) == [other]
