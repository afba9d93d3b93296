"""What people said about rows, put into the dataset: corrections and a list of rows to leave out, by row id. Pure.

A row keeps its id over runs, so that one sheet serves them all. What no longer fits is reported, never an error.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from finetune_contract.answer_text import contains
from finetune_contract.artifacts import Document, Example
from finetune_contract.model import ContractModel
from finetune_contract.prompt import CITATION, cited_numbers, is_refusal
from finetune_trainer.dataset.examples.answers import fact_strings
from finetune_trainer.dataset.on_disk import Chosen, ReadOnDemand
from finetune_trainer.dataset.review_sheet import Judgement, Verdict, as_in_sheet
from finetune_trainer.errors import DataRejected

REMOVED_REASON = "removed by a reviewer"


class Outcome(StrEnum):
    """What became of a person's judgement."""

    KEPT = "kept"
    CORRECTED = "corrected"
    DOUBTFUL = "corrected, but its document has changed since"
    REMOVED = "removed"
    STALE = "not applied: the answer it speaks of is no longer given"
    GONE = "not applied: there is no such row any more"
    OPEN = "to be looked at again"


class ReviewedRow(ContractModel):
    """A judgement and what became of it; `answer` in it is the one that the build made."""

    judgement: Judgement
    outcome: Outcome


@dataclass(frozen=True)
class Reviewed:
    """Rows after the review, side by side with those before."""

    sides: tuple[Sequence[Example], ...]
    rows: tuple[ReviewedRow, ...]

    def count(self, *outcomes: Outcome) -> int:
        """How many judgements ended so."""
        return sum(row.outcome in outcomes for row in self.rows)


def document_version(document: Document) -> str:
    """Another one whenever title or text of the document are."""
    return hashlib.sha256(f"{document.post_title}\n{document.post_content}".encode()).hexdigest()[:16]


def versions_by_url(documents: Iterable[Document]) -> dict[str, str]:
    """The documents' versions by address."""
    return {document.post_url: document_version(document) for document in documents}


def apply_review(
    judgements: Sequence[Judgement],
    sides: Sequence[Sequence[Example]],
    versions: Mapping[str, str],
    place: str,
) -> Reviewed:
    """The sides of the dataset, corrected and without the rows that a person took out.

    Raises:
        DataRejected: a correction cites a source that the row does not show, or must_contain names a string that
            the answer does not contain.
    """
    spoken_of = {judgement.id for judgement in judgements}
    by_id = {row.id: row for side in sides for row in side if row.id in spoken_of}
    changed: dict[str, Example | None] = {}
    rows = []
    for judgement in judgements:
        row = by_id.get(judgement.id)
        if row is None:
            rows.append(ReviewedRow(judgement=judgement, outcome=Outcome.GONE))
            continue
        outcome = _outcome(judgement, row, versions.get(row.document_url, ""))
        if outcome is Outcome.REMOVED:
            changed[row.id] = None
        elif outcome in (Outcome.CORRECTED, Outcome.DOUBTFUL):
            changed[row.id] = corrected(row, judgement, place)
        elif outcome is Outcome.KEPT and judgement.must_contain not in ([], as_in_sheet(row.must_contain)):
            named = _named(judgement, row.answer, "", place)
            changed[row.id] = row.model_copy(update={"must_contain": named})
        seen = judgement.model_copy(
            update={
                "kind": row.kind.value,
                "document": row.document_url,
                "question": row.question,
                "answer": row.answer,
                "document_version": versions.get(row.document_url, ""),
            }
        )
        rows.append(
            ReviewedRow(judgement=seen if outcome is not Outcome.STALE else judgement, outcome=outcome)
        )
    kept = tuple(_Corrected(side, changed) if changed else side for side in sides)
    return Reviewed(kept, tuple(rows))


class _Corrected(ReadOnDemand[Example]):
    """Rows with those in `changed` put right; None there takes a row out."""

    def __init__(self, rows: Sequence[Example], changed: Mapping[str, Example | None]) -> None:
        self._rows = Chosen(
            rows, (place for place, row in enumerate(rows) if changed.get(row.id, row) is not None)
        )
        self._changed = changed

    def __len__(self) -> int:
        return len(self._rows)

    def _at(self, index: int) -> Example:
        row = self._rows[index]
        return self._changed.get(row.id) or row


def apply_again(
    judgements: Sequence[Judgement],
    examples: Sequence[Example],
    reviewed: Sequence[ReviewedRow],
    versions: Mapping[str, str],
    place: str,
) -> tuple[ReviewedRow, ...]:
    """What would become of judgements in the next build; `examples` are what an earlier review has left.

    Raises:
        DataRejected: a correction cites a source that the row does not show, or must_contain names a string that
            the answer does not contain.
    """
    earlier = {row.judgement.id: row for row in reviewed}
    made = [_as_made(row, earlier.get(row.id)) for row in examples]
    rows = apply_review(judgements, (made,), versions, place).rows
    return tuple(_of_removed(row, earlier.get(row.judgement.id)) for row in rows)


def _as_made(row: Example, said: ReviewedRow | None) -> Example:
    """The row before a person corrected it."""
    if said is None or said.outcome not in (Outcome.CORRECTED, Outcome.DOUBTFUL):
        return row
    return row.model_copy(update={"answer": said.judgement.answer})


def _of_removed(row: ReviewedRow, said: ReviewedRow | None) -> ReviewedRow:
    """A row that a person took out is not in the dataset, and the next build makes it again."""
    if row.outcome is not Outcome.GONE or said is None or said.outcome is not Outcome.REMOVED:
        return row
    outcomes = {
        Verdict.REMOVE: Outcome.REMOVED,
        Verdict.KEEP: Outcome.KEPT,
        Verdict.CORRECT: Outcome.CORRECTED,
    }
    return row.model_copy(update={"outcome": outcomes.get(row.judgement.verdict, Outcome.OPEN)})


def unsaid(judgements: Sequence[Judgement], known: Iterable[Judgement]) -> list[Judgement]:
    """Those that say what none of the known ones says."""

    def words(judgement: Judgement) -> tuple[str, ...]:
        strings = as_in_sheet(judgement.must_contain)
        return judgement.id, judgement.verdict, judgement.corrected_answer, judgement.note, *strings

    said = {words(judgement) for judgement in known}
    return [judgement for judgement in judgements if words(judgement) not in said]


def corrected(row: Example, judgement: Judgement, place: str) -> Example:
    """The row with a person's answer; the source that it was cited from is still cited."""
    answer = (
        " ".join(judgement.corrected_answer.split()) if "\n" not in row.answer else judgement.corrected_answer
    )
    shown = row.prompt[-1].content
    for number in cited_numbers(answer):
        if f"\n[{number}] " not in shown:
            raise DataRejected(
                f"{place}: line {judgement.line}: corrected_answer cites [{number}], and the row shows no such source; "
                "cite one that it shows, or leave the number out"
            )
    named = _named(judgement, answer, row.answer, place)
    facts = [] if is_refusal(answer) else named or fact_strings(CITATION.sub("", answer), row.question)
    if not cited_numbers(answer) and not is_refusal(answer):
        answer += "".join(f" [{number}]" for number in cited_numbers(row.answer))
    return row.model_copy(update={"answer": answer, "must_contain": facts})


def _named(judgement: Judgement, answer: str, corrected_one: str, place: str) -> list[str]:
    """The strings that a person asks of the answer; those of the answer that was corrected were in the sheet before."""
    found = []
    for string in judgement.must_contain:
        if contains(answer, string):
            found.append(string)
        elif not contains(corrected_one, string):
            raise DataRejected(
                f"{place}: line {judgement.line}: must_contain names {string!r}, and the answer does not contain it; "
                "write it as it stands there, or empty must_contain and the strings are found by rule"
            )
    return found


def summary_in_words(rows: Sequence[ReviewedRow]) -> str:
    """Such as `3 corrected, 1 removed`; empty without any."""
    counts = Counter(row.outcome for row in rows)
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])


def sheet_rows(
    examples: Sequence[Example], versions: Mapping[str, str], reviewed: Sequence[ReviewedRow]
) -> list[Judgement]:
    """Lines for a new sheet, with everything that was said before; rows that were taken out are there too."""
    said = {row.judgement.id: row for row in reviewed}
    lines = [_line(row, versions.get(row.document_url, ""), said.pop(row.id, None)) for row in examples]
    others = [row.judgement for row in said.values()]
    return [
        *lines,
        *(judgement for judgement in others if judgement.verdict is not Verdict.OPEN or judgement.note),
    ]


def _line(row: Example, version: str, said: ReviewedRow | None) -> Judgement:
    line = Judgement(
        id=row.id,
        kind=row.kind.value,
        document=row.document_url,
        question=row.question,
        answer=row.answer,
        must_contain=row.must_contain,
        document_version=version,
    )
    if said is None:
        return line
    earlier = said.judgement
    answer = earlier.corrected_answer or row.answer
    update: dict[str, object] = {
        "must_contain": [string for string in earlier.must_contain if contains(answer, string)]
        or row.must_contain,
        "verdict": earlier.verdict,
        "corrected_answer": earlier.corrected_answer,
        "note": earlier.note,
    }
    if said.outcome in (Outcome.CORRECTED, Outcome.DOUBTFUL):
        update["answer"] = earlier.answer
    if said.outcome in (Outcome.STALE, Outcome.DOUBTFUL):
        update |= {"verdict": Verdict.CHECK, "note": f"{earlier.note} ({said.outcome.value})".strip()}
    return line.model_copy(update=update)


def _outcome(judgement: Judgement, row: Example, version: str) -> Outcome:
    verdict = judgement.verdict
    if verdict is Verdict.REMOVE:
        return Outcome.REMOVED
    if verdict not in (Verdict.KEEP, Verdict.CORRECT):
        return Outcome.OPEN
    if judgement.answer and judgement.answer.split() != row.answer.split():
        return Outcome.STALE
    if verdict is Verdict.KEEP:
        return Outcome.KEPT
    is_old = bool(judgement.document_version) and judgement.document_version != version
    return Outcome.DOUBTFUL if is_old else Outcome.CORRECTED
