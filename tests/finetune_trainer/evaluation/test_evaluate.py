from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_contract.artifact_layout import dataset_folder, evaluation_folder, model_folder
from finetune_contract.artifacts import ArtifactKind
from finetune_contract.run_spec import ExampleKind, FineTuneRunSpec, GateMetric, GateSpec, PromptFormat
from finetune_trainer.artifact_files import publish_folder
from finetune_trainer.errors import DataRejected, StoreRejected
from finetune_trainer.evaluation.evaluate import evaluate
from finetune_trainer.evaluation.generate import answer_questions
from finetune_trainer.stage_context import StageContext
from tests.finetune_trainer.training.tiny_model import (
    DATASET_DIGEST,
    RUN_KEY,
    context_for,
    example,
    publish_dataset,
    save_tiny_model,
    spec_for,
)

QUESTIONS = [example(n) for n in range(4)] + [example(n, "Why?", ExampleKind.REFUSAL) for n in range(4, 6)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def prepared(folder: Path, base: Path, gates: list[GateSpec]) -> StageContext:
    """A run whose new model is the base again: nothing was learned."""
    spec = spec_for(base)
    evaluation = spec.evaluation.model_copy(update={"gates": gates})
    spec = FineTuneRunSpec.model_validate({**spec.to_wire(), "evaluation": evaluation.to_wire()})
    context = context_for(folder, spec)
    publish_dataset(context, [], QUESTIONS)
    model = folder / "made-model"
    (model / "safetensors").mkdir(parents=True)
    for path in base.iterdir():
        (model / "safetensors" / path.name).write_bytes(path.read_bytes())
    (model / "model.gguf").write_bytes(b"not needed here")
    publish_folder(context.store, model_folder(RUN_KEY), model, ArtifactKind.MODEL, {})
    return context


def test_a_gate_that_fails_is_a_verdict_and_not_an_error(base: Path, tmp_path: Path):
    context = prepared(tmp_path, base, [GateSpec(metric=GateMetric.ANSWER_RECALL, minimum_gain=0.05)])

    report = evaluate(context)

    assert report.exit_code == 0
    assert report.evaluation is not None
    assert not report.evaluation.passed
    assert report.evaluation.gate == "answer_recall 0.00 is under base 0.00 + 0.05"
    assert report.message == "not good enough: answer_recall 0.00 is under base 0.00 + 0.05"


def test_verdict_answers_and_report_are_published_and_found_again(base: Path, tmp_path: Path):
    context = prepared(tmp_path, base, [GateSpec(metric=GateMetric.STOP_RATE, minimum=0.0)])

    first = evaluate(context)
    again = evaluate(context)

    assert first == again
    assert first.evaluation is not None
    assert first.evaluation.passed
    assert [metric.name for metric in first.evaluation.metrics] == [metric.value for metric in GateMetric]
    folder = tmp_path / "store" / evaluation_folder(RUN_KEY)
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    assert all(row["base"] == row["new"] for row in rows)
    assert "tiny: <strong>passed</strong>" in (folder / "report.html").read_text()
    assert first.evaluation.report_uri == (folder / "report.html").resolve().as_uri()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"passed": "perhaps"}', b"\xff"])
def test_a_stored_verdict_that_cannot_be_read_is_named_with_its_remedy(
    base: Path, tmp_path: Path, content: bytes
):
    context = prepared(tmp_path, base, [])
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "verdict.json").write_bytes(content)
    publish_folder(context.store, evaluation_folder(RUN_KEY), folder, ArtifactKind.EVALUATION, {})

    with pytest.raises(StoreRejected, match=r"verdict.json: is no verdict .*delete its folder"):
        evaluate(context)


def test_the_transfer_set_is_asked_and_no_gate_judges_it(base: Path, tmp_path: Path):
    context = prepared(tmp_path, base, [GateSpec(metric=GateMetric.STOP_RATE, minimum=0.0)])
    folder = tmp_path / "given"
    folder.mkdir()
    for name, rows in (
        ("train", []),
        ("evaluation", QUESTIONS),
        ("transfer", [example(n) for n in range(8, 16)]),
    ):
        lines = "".join(json.dumps(row.to_wire()) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    publish_folder(context.store, dataset_folder(DATASET_DIGEST), folder, ArtifactKind.DATASET, {})

    evaluate(context)

    published = tmp_path / "store" / evaluation_folder(RUN_KEY)
    sets = [json.loads(line)["set"] for line in (published / "answers.jsonl").read_text().splitlines()]
    assert (sets.count("recall"), sets.count("transfer")) == (6, 3)
    assert "and 3 about pages that it never saw" in (published / "report.html").read_text()


def test_only_the_safetensors_of_the_model_are_fetched(base: Path, tmp_path: Path):
    context = prepared(tmp_path, base, [])

    evaluate(context)

    assert not (tmp_path / "work" / "model" / "model.gguf").exists()


def test_an_evaluation_without_questions_is_refused_with_the_field(base: Path, tmp_path: Path):
    context = prepared(tmp_path, base, [])
    publish_dataset(context, [example(0)], [])

    with pytest.raises(DataRejected, match=r"spec.dataset.split.evaluation"):
        evaluate(context)


def test_a_batch_gives_the_answers_of_single_questions(base: Path):
    def ask(questions: list[int]) -> list[str]:
        rows = [QUESTIONS[n] for n in questions]
        answers = answer_questions(base, PromptFormat.CHAT, rows, 8, lambda _: None)
        return [answer.text for answer in answers]

    together = ask([0, 1, 4, 2])

    assert together == [ask([n])[0] for n in (0, 1, 4, 2)]
    assert any(together)
