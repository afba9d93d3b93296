"""dataset.html: the verdict first, warnings with numbers, everything escaped; and the numbers under its pictures."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from finetune_contract.artifacts import ChatMessage, Document, Example
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.alike_documents import NamedDocument
from finetune_trainer.dataset.built_dataset import BuiltDataset, GeneratorUse
from finetune_trainer.dataset.cleaned_documents import NotedDocument
from finetune_trainer.dataset.report import render_report, warnings
from finetune_trainer.dataset.review import Outcome, ReviewedRow
from finetune_trainer.dataset.review_sheet import Judgement
from finetune_trainer.dataset.sources.raw_document import DroppedDocument
from finetune_trainer.dataset.step_counts import StepCount, count_step
from finetune_trainer.dataset.summary import balance_of_kinds, histogram

EVIL = "<script>alert(1)</script>"


def a_row(number: int, kind: ExampleKind = ExampleKind.GROUNDED, question: str = "Who?") -> Example:
    return Example(
        id=f"{number:064x}",
        kind=kind,
        document_url="http://s/1",
        template="t",
        question=question,
        prompt=[ChatMessage(role="user", content=f"Answer. {question}")],
        answer="He.",
    )


def a_dataset(rows: int = 1200) -> BuiltDataset:
    document = Document(
        source="site",
        post_id="1",
        post_title="T",
        post_excerpt="",
        post_content="Some words.",
        post_date="2025-01-01T00:00:00Z",
        post_author="",
        post_categories=["Blogs"],
        post_tags=[],
        post_url="http://s/1",
    )
    return BuiltDataset(
        documents=(document,) * 10,
        training=tuple(a_row(number, list(ExampleKind)[number % 2]) for number in range(rows)),
        evaluation=(a_row(5000),),
        transfer=(a_row(6000),),
        steps=(count_step("sources", "documents", 12, 10, ["empty", "protected"]),),
    )


def test_a_good_dataset_is_called_ready() -> None:
    page = render_report(a_dataset(), "d" * 64)

    assert "ready to train on" in page
    assert "1,200 training examples from 10 documents" in page
    assert warnings(a_dataset()) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"training": a_dataset(999).training}, "999 training examples are under 1,000"),
        ({"dropped": (DroppedDocument("site", "9", "u", "empty"),) * 3}, "3 of 13 documents were dropped"),
        (
            {"noted": (NotedDocument("site", "9", "u", "hardly any text"),)},
            "Documents that were hard to clean: 1",
        ),
        (
            {"without_rows": (ExampleKind.GROUNDED, ExampleKind.REFUSAL)},
            "No training example was made of these kinds: grounded, refusal",
        ),
        ({"generator": GeneratorUse(9, 10, pairs=40, kept=18)}, "18 of 40 pairs of the generator passed"),
        ({"personal_data": {"e-mail": 2, "phone": 1}}, "Personal data was found in 3 places"),
        (
            {"steps": (StepCount("cleaning", "documents", 5, 3, {"empty": 1}),)},
            "The count of this step is wrong",
        ),
        (
            {"reviewed": (ReviewedRow(judgement=Judgement(id="a"), outcome=Outcome.GONE),)},
            "Lines of the review that want another look: 1 not applied",
        ),
    ],
)
def test_what_a_person_should_know_comes_first(changed: dict[str, object], words: str) -> None:
    built = replace(a_dataset(), **changed)

    assert [warning for warning in warnings(built) if words in warning]
    page = render_report(built, "d" * 64)
    assert page.index(words) < page.index("Kinds of examples")
    assert "read this first" in page


def test_documents_that_are_nearly_the_same_are_drawn_and_named() -> None:
    pair = tuple(NamedDocument(f"Tour {n}", f"http://s/tour-{n}") for n in range(2))
    crowd = tuple(NamedDocument(f"Note {n}", f"http://s/note-{n}") for n in range(70))

    page = render_report(replace(a_dataset(), alike=(crowd, pair)), "d" * 64)

    assert "in 1 group of 70" in page
    assert "in 1 group of 2" in page
    assert "http://s/tour-1" in page
    assert "and 60 more" in page
    assert "No two documents are nearly the same." in render_report(a_dataset(), "d" * 64)


def test_what_a_site_says_is_escaped_everywhere() -> None:
    document = a_dataset().documents[0].model_copy(update={"post_categories": [EVIL]})
    built = replace(
        a_dataset(),
        documents=(document,),
        training=(a_row(1, question=EVIL),),
        evaluation=(a_row(2, question=EVIL),),
        dropped=(DroppedDocument("site", "9", EVIL, EVIL),),
        noted=(NotedDocument("site", "9", EVIL, EVIL),),
        personal_data={EVIL: 1},
        alike=((NamedDocument(EVIL, EVIL),) * 2,),
        reviewed=(ReviewedRow(judgement=Judgement(id="a", question=EVIL, note=EVIL), outcome=Outcome.KEPT),),
        steps=(count_step(EVIL, EVIL, 2, 1, [EVIL], [EVIL]),),
    )

    page = render_report(built, "d" * 64)

    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_documents_to_look_at_are_named_and_a_long_list_says_how_many_more_there_are() -> None:
    noted = tuple(NotedDocument("site", str(number), f"http://s/p{number}", "deep") for number in range(203))
    step = count_step("cleaning", "documents", 203, 203, [], ["deep"] * 203)

    page = render_report(replace(a_dataset(), noted=noted, steps=(step,)), "d" * 64)

    assert "<td>http://s/p199</td><td>deep</td>" in page
    assert "http://s/p200" not in page
    assert "and 3 more in noted.jsonl" in page
    assert "kept, to be looked at: deep" in page


def test_the_page_asks_nobody_for_anything() -> None:
    page = render_report(a_dataset(), "d" * 64).replace('href="data:,"', "")

    assert re.findall(r"\b(?:src|href|srcset|action)\s*=|url\(", page) == []
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page


def test_the_same_dataset_gives_the_same_page_and_an_empty_one_gives_a_page() -> None:
    assert render_report(a_dataset(), "d") == render_report(a_dataset(), "d")
    assert "0 training examples" in render_report(BuiltDataset((), (), ()), "d")


def test_a_histogram_has_round_bars_and_holds_every_length() -> None:
    drawn = histogram([*range(1, 101), 5000])

    assert sum(bar.count for bar in drawn.bars) == 101
    assert {bar.end - bar.start for bar in drawn.bars} == {5}
    assert len(drawn.bars) <= 24
    assert (drawn.median, drawn.longest) == (51, 5000)
    assert histogram([]).highest == 1


def test_kinds_in_equal_numbers_are_in_balance() -> None:
    kinds = [a_row(1), a_row(2, ExampleKind.URL)]

    assert balance_of_kinds(kinds) == pytest.approx(1)
    assert balance_of_kinds(kinds[:1]) == 0
    assert 0 < balance_of_kinds([*kinds, a_row(3), a_row(4)]) < 1
