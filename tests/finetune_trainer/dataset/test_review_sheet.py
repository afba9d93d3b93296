"""The sheet: what goes out comes back, also through a spreadsheet; what contradicts itself names its line."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune_trainer.dataset.review_sheet import COLUMNS, Judgement, Verdict, read_sheet, write_sheet
from finetune_trainer.errors import DataRejected

PLACE = "spec.dataset.reviewFile"


def a_line(**changes: object) -> Judgement:
    fields: dict[str, object] = {
        "id": "a" * 64,
        "kind": "grounded",
        "document": "http://s/1",
        "question": "What does a ticket cost?",
        "answer": "£7 [1]",
        "must_contain": ["£7", "winter"],
        "verdict": Verdict.CORRECT,
        "corrected_answer": "£8, “really” [1]",
        "note": "asked the office;\nit is £8",
        "document_version": "0123",
    }
    return Judgement.model_validate(fields | changes)


def read(text: str) -> list[Judgement]:
    return read_sheet(text.encode(), PLACE)


def test_what_is_written_is_read_again() -> None:
    lines = [a_line(), a_line(id="b" * 64, verdict=Verdict.REMOVE, corrected_answer="")]

    found = read_sheet(write_sheet(lines), PLACE)

    assert [line.model_copy(update={"line": 0}) for line in found] == lines


def test_the_columns_are_those_that_people_know() -> None:
    header = write_sheet([]).decode("utf-8-sig").strip()

    assert header.startswith("id,kind,document,question,answer,must_contain,verdict,corrected_answer,note")
    assert header.split(",") == list(COLUMNS)


@pytest.mark.parametrize(
    ("strings", "cell"),
    [
        ([], ""),
        (["oak"], "oak"),
        (["4 March 2024"], "4 March 2024 |"),
        (["09:40", "17:20"], "09:40 | 17:20"),
    ],
)
def test_a_date_or_number_stands_in_a_cell_that_no_spreadsheet_takes_for_one(
    strings: list[str], cell: str
) -> None:
    content = write_sheet([a_line(must_contain=strings)])

    assert next(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))["must_contain"] == cell
    assert read_sheet(content, PLACE)[0].must_contain == strings


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "'="])
def test_no_cell_can_run_as_a_formula_and_its_text_is_not_lost(start: str) -> None:
    content = write_sheet([a_line(question=f'{start}HYPERLINK("http://evil/")')])

    cells = next(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert cells["question"].startswith("'")
    assert read_sheet(content, PLACE)[0].question.strip() == f'{start}HYPERLINK("http://evil/")'.strip()


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00")))
@example("\n")
@example(" '=1")
def test_any_note_comes_back(note: str) -> None:
    line = a_line(note=note)

    assert read_sheet(write_sheet([line]), PLACE)[0].note.strip() == note.strip()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff", "sep={}\r\n", "\ufeffsep={}\r\n"])
def test_what_excel_makes_of_it_is_read(delimiter: str, mark: str) -> None:
    text = mark.format(delimiter) + "\r\n".join(
        delimiter.join(cells) for cells in (("ID", "Verdict", "Note"), ("abc", "REMOVE", "wrong"))
    )

    assert [(line.id, line.verdict, line.note) for line in read(text)] == [("abc", Verdict.REMOVE, "wrong")]


def test_lines_without_a_word_are_left_out() -> None:
    assert read("id,verdict,corrected_answer,note\nabc,,,\n\n,,,\nxyz,ok,,\n")[0].id == "xyz"


def test_a_corrected_answer_alone_is_a_correction() -> None:
    assert read("id,verdict,corrected_answer\nabc,,£8\n")[0].verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "question,answer\na,b\n",
            r"line 1: the columns id and verdict are needed, and there is question, answer",
        ),
        ("", r"line 1: .* there is nothing"),
        (
            "id,verdict\nabc,maybe\n",
            r"line 2: verdict 'maybe' is not known; write one of keep, correct, remove",
        ),
        ("id,verdict,corrected_answer\nabc,correct,\n", r"line 2: .* corrected_answer is empty"),
        (
            "id,verdict,corrected_answer\nabc,keep,x\n",
            r"line 2: verdict is keep and there is a corrected_answer",
        ),
        ("id,verdict\n,remove\n", r"line 2: has a verdict and no id"),
        ("id,verdict\nabc,keep\nabc,remove\n", r"line 3: row abc is in line 2 already"),
        ('id,verdict\nabc,"keep\n', r"is no CSV"),
    ],
)
def test_what_cannot_be_meant_names_line_and_remedy(text: str, words: str) -> None:
    with pytest.raises(DataRejected, match=rf"spec.dataset.reviewFile: .*{words}|{words}"):
        read(text)


def test_another_encoding_is_refused_with_the_remedy() -> None:
    with pytest.raises(DataRejected, match=r"is not UTF-8 .* save it as `CSV UTF-8`"):
        read_sheet("id,verdict,note\nabc,remove,£\n".encode("latin-1"), PLACE)
