"""`finetune dataset`: what each action prints and leaves, on a small dataset in a folder."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from finetune_contract.artifact_layout import dataset_folder
from finetune_contract.artifacts import ChatMessage, Document, Example
from finetune_contract.run_spec import ExampleKind
from finetune_trainer import dataset_commands
from finetune_trainer.artifact_files import read_manifest, sha256_of
from finetune_trainer.dataset.built_dataset import BuiltDataset
from finetune_trainer.dataset.dataset_on_disk import find_dataset, read_dataset
from finetune_trainer.dataset.review import Outcome, ReviewedRow
from finetune_trainer.dataset.review_sheet import Judgement, Verdict, read_sheet
from finetune_trainer.dataset.step_counts import count_step
from finetune_trainer.dataset.stored_dataset import store_dataset
from finetune_trainer.laptop import main
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.local_folder import LocalFolder

RUN = Path(__file__).parents[2] / "examples/quickstart/finetunerun.yaml"


def a_document(number: int, content: str = "Text.") -> Document:
    return Document(
        source="site",
        post_id=str(number),
        post_title=f"Page {number}",
        post_excerpt="",
        post_content=content,
        post_date="2025-01-01T00:00:00Z",
        post_author="",
        post_categories=["Blogs"],
        post_tags=[],
        post_url=f"http://s/{number}",
    )


def a_row(number: int, answer: str = "It is [red]. [1]", kind: ExampleKind = ExampleKind.GROUNDED) -> Example:
    prompt = f"Answer.\n\n[1] Page\nIt is red.\n\nQuestion: What colour is {number}?"
    return Example(
        id=f"{number:064x}",
        kind=kind,
        document_url=f"http://s/{number}",
        template="t",
        question=f"What colour is {number}?",
        prompt=[ChatMessage(role="user", content=prompt)],
        answer=answer,
        must_contain=["red"],
    )


def keep(workspace: Path, built: BuiltDataset) -> str:
    context = StageContext(
        run_name="run",
        spec=None,  # type: ignore[arg-type]
        work_folder=workspace / "work",
        store=LocalFolder(workspace / "store"),
        progress=lambda *_, **__: None,
        environment={},
    )
    return store_dataset(context, built)


@pytest.fixture
def built() -> BuiltDataset:
    return BuiltDataset(
        documents=(a_document(1), a_document(2)),
        training=(a_row(1), a_row(2, kind=ExampleKind.URL)),
        evaluation=(a_row(3),),
        steps=(count_step("sources", "documents", 3, 2, {"empty": 1}),),
    )


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["dataset", *(str(argument) for argument in arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_inspect_shows_counts_and_rows_as_they_are(built, tmp_path, capsys):
    digest = keep(tmp_path, built)

    assert run("inspect", "--workspace", tmp_path) == 0

    shown = capsys.readouterr().out
    assert digest[:12] in shown
    assert "It is [red]. [1]" in shown


def test_inspect_gives_json_of_one_kind_and_document(built, tmp_path, capsys):
    keep(tmp_path, built)

    run(
        "inspect",
        "--workspace",
        tmp_path,
        "--kind",
        "grounded",
        "--document",
        "PAGE 1",
        "-n",
        5,
        "-o",
        "json",
    )

    facts = json.loads(capsys.readouterr().out)
    assert (facts["training"], facts["evaluation"]) == (1, 0)
    assert [row["question"] for row in facts["samples"]["grounded"]] == ["What colour is 1?"]
    assert facts["steps"][0]["dropped"] == {"empty": 1}


def test_diff_counts_and_names_what_changed(built, tmp_path, capsys):
    old = keep(tmp_path, built)
    new = keep(
        tmp_path,
        BuiltDataset(
            documents=(a_document(1, "New text."), a_document(4)),
            training=(a_row(1, "It is blue. [1]"), a_row(4)),
            evaluation=(a_row(3),),
        ),
    )

    assert run("diff", old[:20], new[:20], "--workspace", tmp_path, "-o", "json") == 0

    facts = json.loads(capsys.readouterr().out)
    assert [change["name"] for change in facts["documents"]["changed"]] == ["http://s/1"]
    assert [change["name"] for change in facts["documents"]["added"]] == ["http://s/4"]
    assert [change["name"] for change in facts["documents"]["removed"]] == ["http://s/2"]
    assert facts["rows"]["changed"] == [
        {"name": "What colour is 1?", "before": "It is [red]. [1]", "after": "It is blue. [1]"}
    ]
    assert (len(facts["rows"]["added"]), len(facts["rows"]["removed"]), facts["rows"]["same"]) == (1, 1, 1)
    run("diff", tmp_path / "store" / dataset_folder(old), tmp_path / "store" / dataset_folder(new))
    assert "was It is [red]. [1]" in capsys.readouterr().out


def test_a_sheet_goes_out_and_comes_in(built, tmp_path, capsys):
    keep(tmp_path, built)
    sheet = tmp_path / "review.csv"

    assert run("review", "--workspace", tmp_path, "--out", sheet) == 0
    assert sheet.read_bytes().count(b"\r\n") == 4
    id_of_first = f"{1:064x}"
    sheet.write_text(f"id,verdict,corrected_answer\n{id_of_first},,It is blue.\nzzz,remove,\n")
    capsys.readouterr()

    assert run("review", "--workspace", tmp_path, "--in", sheet) == 0

    assert "1 corrected, 1 not applied: there is no such row any more" in capsys.readouterr().out


def test_a_sheet_with_words_that_nobody_has_read_is_not_written_over(built, tmp_path, capsys):
    keep(tmp_path, built)
    sheet = tmp_path / "review.csv"
    written = f"id,verdict,corrected_answer\n{1:064x},remove,\n"
    sheet.write_text(written)

    assert run("review", "--workspace", tmp_path, "--out", sheet) == 11
    assert f"what was said in 1 of its lines would be lost; carry them over with --in {sheet}" in (
        capsys.readouterr().err
    )
    assert sheet.read_text() == written

    assert run("review", "--workspace", tmp_path, "--in", sheet, "--out", sheet) == 0
    assert [(line.id, line.verdict) for line in read_sheet(sheet.read_bytes(), "sheet")] == [
        (f"{1:064x}", "remove")
    ]
    assert run("review", "--workspace", tmp_path, "--out", tmp_path / "new.csv") == 0
    assert run("review", "--workspace", tmp_path, "--out", tmp_path / "new.csv") == 0


def test_a_sheet_that_cannot_be_written_or_is_none_is_said(built, tmp_path, capsys):
    keep(tmp_path, built)
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")

    assert run("review", "--workspace", tmp_path, "--out", tmp_path / "no" / "review.csv") == 11
    assert "review.csv: cannot be written (No such file or directory)" in capsys.readouterr().err
    assert run("review", "--workspace", tmp_path, "--out", notes) == 11
    assert "notes.txt: is there and is no sheet" in capsys.readouterr().err
    assert notes.read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--kind", "poem", "'poem' is no kind of example; choose one of grounded, closed_book"),
        ("-n", "0", "'0' is no whole number from 1"),
        ("-n", "many", "'many' is no whole number from 1"),
    ],
)
def test_a_wrong_option_is_said_in_words(option, value, words, tmp_path, capsys):
    assert run("inspect", "--workspace", tmp_path, option, value) == 2
    assert words in capsys.readouterr().err


def test_the_newest_dataset_is_the_one_that_was_built_last(built, tmp_path, capsys):
    first = keep(tmp_path, built)
    other = keep(tmp_path, replace(built, training=built.training[:1]))
    folders = {digest: tmp_path / "store" / dataset_folder(digest) for digest in (first, other)}
    for age, digest in enumerate((first, other)):
        os.utime(folders[digest] / "manifest.json", (age, age))
    assert find_dataset("", tmp_path) == folders[other]

    keep(tmp_path, built)

    assert find_dataset("", tmp_path) == folders[first]


def test_the_same_rows_that_came_about_in_another_way_are_told_anew(built, tmp_path):
    said = ReviewedRow(judgement=Judgement(id=f"{1:064x}", verdict=Verdict.KEEP), outcome=Outcome.KEPT)
    digest = keep(tmp_path, built)
    folder = tmp_path / "store" / dataset_folder(digest)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    steps = (count_step("sources", "documents", 4, 2, {"empty": 2}),)
    assert keep(tmp_path, replace(built, reviewed=(said,), steps=steps)) == digest

    told = read_dataset(folder)
    assert told.reviewed == (said,)
    assert told.steps[0]["dropped"] == {"empty": 2}
    for entry in read_manifest(LocalFolder(tmp_path / "store"), dataset_folder(digest)).files:
        assert sha256_of(folder / entry.path) == entry.sha256
    keep(tmp_path, built)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_sheet_that_contradicts_itself_ends_with_the_exit_code_of_bad_data(built, tmp_path, capsys):
    keep(tmp_path, built)
    sheet = tmp_path / "review.csv"
    sheet.write_text("id,verdict\nabc,perhaps\n")

    assert run("review", "--workspace", tmp_path, "--in", sheet) == 11
    assert "review.csv: line 2: verdict 'perhaps' is not known" in capsys.readouterr().err


def test_a_dataset_that_is_not_there_is_said_with_the_remedy(tmp_path, capsys):
    assert run("inspect", "--workspace", tmp_path) == 11
    assert "there is no dataset; give its folder" in capsys.readouterr().err


def test_build_says_where_the_dataset_is_and_what_is_next(built, tmp_path, capsys, monkeypatch):
    from finetune_contract.stage_protocol import DatasetFacts, Stage, StageReport

    def fake_stage(stage: Stage, context: StageContext, function: object) -> StageReport:
        assert function is dataset_commands.build_without_model
        assert (context.on_cluster, context.store.uri("")) == (False, (tmp_path / "store").as_uri())
        digest = keep(tmp_path, built)
        facts = DatasetFacts(
            digest=digest, run_key="", documents=2, training_examples=2, evaluation_examples=1
        )
        return StageReport(stage=stage, dataset=facts)

    monkeypatch.setattr(dataset_commands, "run_stage", fake_stage)

    assert run("build", RUN, "--workspace", tmp_path) == 0

    shown = capsys.readouterr().out
    [folder] = (tmp_path / "store" / "datasets").iterdir()
    assert f"report:  {folder}/dataset.html" in shown
    assert f"next:    finetune dataset inspect --workspace {tmp_path}" in shown
    assert "1 empty" in shown


def test_a_wrong_run_ends_as_it_does_for_finetune_run(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(RUN.read_text().replace("maxSteps:", "maxStep:"))

    assert run("build", file, "--workspace", tmp_path) == 10
    assert "spec.training.maxStep:" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["build", "inspect", "diff", "review"])
def test_every_action_teaches_by_example(action, capsys):
    assert run(action, "--help") == 0
    assert f"examples:\n  finetune dataset {action} " in capsys.readouterr().out
