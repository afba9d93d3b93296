"""review.csv: rows of a dataset as a sheet that a person reads, judges and hands back. Pure text.

The sheet is made for spreadsheets: UTF-8 with a mark at its start, and no cell that could run as a formula. What comes
back may have been through Excel: with the mark or without, with commas, semicolons or tabs.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

from pydantic import Field

from finetune_contract.model import ContractModel
from finetune_trainer.errors import DataRejected

COLUMNS = (
    "id",
    "kind",
    "document",
    "question",
    "answer",
    "must_contain",
    "verdict",
    "corrected_answer",
    "note",
    "document_version",
)
MUST_CONTAIN_SEPARATOR = " | "
_FORMULA = re.compile(r"^'*[=+\-@\t\r\n]")
_NEUTRALISED = re.compile(r"^''*[=+\-@\t\r\n]")
_CELL_LIMIT = 1_000_000


class Verdict(StrEnum):
    """What a person says about a row."""

    OPEN = ""
    KEEP = "keep"
    CORRECT = "correct"
    REMOVE = "remove"
    CHECK = "check"
    """To be looked at again; changes nothing."""


_OTHER_WORDS = {
    "ok": Verdict.KEEP,
    "yes": Verdict.KEEP,
    "good": Verdict.KEEP,
    "edit": Verdict.CORRECT,
    "change": Verdict.CORRECT,
    "drop": Verdict.REMOVE,
    "deny": Verdict.REMOVE,
    "delete": Verdict.REMOVE,
    "no": Verdict.REMOVE,
    "bad": Verdict.REMOVE,
}


class Judgement(ContractModel):
    """One line of the sheet."""

    id: str
    """Of the example; the same over runs."""
    kind: str = ""
    document: str = ""
    """Address of the document."""
    question: str = ""
    answer: str = ""
    """The answer that the person saw."""
    must_contain: list[str] = Field(default_factory=list)
    verdict: Verdict = Verdict.OPEN
    corrected_answer: str = ""
    note: str = ""
    document_version: str = ""
    """Of the document that the person saw; empty when not known."""
    line: int = 0
    """In the sheet; 0 when it was not read from one."""


def write_sheet(rows: Iterable[Judgement]) -> bytes:
    """The sheet with one line a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = row.model_dump() | {
            "verdict": row.verdict.value,
            "must_contain": _cell_of(row.must_contain),
        }
        writer.writerow(_neutralise(str(cells[column])) for column in COLUMNS)
    return text.getvalue().encode("utf-8-sig")


def read_sheet(content: bytes, place: str) -> list[Judgement]:
    """The lines that say something, in their order; `place` leads every error.

    Raises:
        DataRejected: this is no sheet of ours, or a line contradicts itself.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataRejected(
            f"{place}: is not UTF-8 (byte {error.start}); in Excel save it as `CSV UTF-8`"
        ) from error
    if text[:4].lower() == "sep=":
        text = text.partition("\n")[2]
    csv.field_size_limit(_CELL_LIMIT)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        header = [name.strip().lower() for name in next(reader, [])]
        _check_header(header, place)
        found: dict[str, Judgement] = {}
        for cells in reader:
            row = _judgement(dict(zip(header, cells, strict=False)), place, reader.line_num)
            if row is None:
                continue
            if row.id in found:
                raise DataRejected(
                    f"{place}: line {row.line}: row {row.id[:12]} is in line {found[row.id].line} already; "
                    "keep one of them"
                )
            found[row.id] = row
    except csv.Error as error:
        raise DataRejected(
            f"{place}: line {reader.line_num}: is no CSV ({error}); save it as `CSV UTF-8` again"
        ) from error
    return list(found.values())


def as_in_sheet(strings: Sequence[str]) -> list[str]:
    """The strings as a sheet gives them back: one with a separator in it comes back as two."""
    return _strings_of(_cell_of(strings))


def _cell_of(strings: Sequence[str]) -> str:
    """A single string with a digit ends with the separator: a spreadsheet would write a date or number its own way."""
    is_alone = len(strings) == 1 and any(character.isdigit() for character in strings[0])
    return MUST_CONTAIN_SEPARATOR.join([*strings, ""] if is_alone else strings).rstrip(" ")


def _strings_of(cell: str) -> list[str]:
    return [string.strip() for string in cell.split(MUST_CONTAIN_SEPARATOR.strip()) if string.strip()]


def _judgement(cells: dict[str, str], place: str, line: int) -> Judgement | None:
    cells = {name: _original(value).strip() for name, value in cells.items()}
    word, corrected = cells.get("verdict", "").lower(), cells.get("corrected_answer", "")
    if not cells.get("id"):
        if word or corrected:
            raise DataRejected(f"{place}: line {line}: has a verdict and no id; copy the id from review.csv")
        return None
    verdict = _verdict(word, corrected, f"{place}: line {line}")
    if verdict is Verdict.OPEN and not cells.get("note"):
        return None
    return Judgement(
        id=cells["id"],
        kind=cells.get("kind", ""),
        document=cells.get("document", ""),
        question=cells.get("question", ""),
        answer=cells.get("answer", ""),
        must_contain=_strings_of(cells.get("must_contain", "")),
        verdict=verdict,
        corrected_answer=corrected,
        note=cells.get("note", ""),
        document_version=cells.get("document_version", ""),
        line=line,
    )


def _verdict(word: str, corrected: str, where: str) -> Verdict:
    """The verdict in the cell; a corrected answer alone is one."""
    if not word:
        return Verdict.CORRECT if corrected else Verdict.OPEN
    verdict = _OTHER_WORDS.get(word) or next((known for known in Verdict if known == word), None)
    if verdict is None:
        words = ", ".join(known.value for known in Verdict if known.value)
        raise DataRejected(f"{where}: verdict {word!r} is not known; write one of {words}, or leave it empty")
    if verdict is Verdict.CORRECT and not corrected:
        raise DataRejected(f"{where}: verdict is {word} and corrected_answer is empty; write the answer")
    if verdict is Verdict.KEEP and corrected:
        raise DataRejected(
            f"{where}: verdict is {word} and there is a corrected_answer; write correct, or empty one of them"
        )
    return verdict


def _check_header(header: list[str], place: str) -> None:
    if "id" not in header or not {"verdict", "corrected_answer"} & set(header):
        found = ", ".join(name for name in header if name)[:200] or "nothing"
        raise DataRejected(
            f"{place}: line 1: the columns id and verdict are needed, and there is {found}; "
            "make the sheet with `finetune dataset review --out review.csv`"
        )


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def _neutralise(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _original(cell: str) -> str:
    return cell[1:] if _NEUTRALISED.match(cell) else cell
