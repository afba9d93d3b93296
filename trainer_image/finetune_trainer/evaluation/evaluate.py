"""The evaluate stage: base and new model on questions that training never saw, gates, report, verdict.

Two sets are asked: the recall set, about documents that were taught, which the gates judge; and the transfer set, about
documents that were not, which the report shows beside it. A gate that fails is a result, not an error: the stage ends
well and the verdict says so.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from finetune_contract.artifact_layout import (
    ANSWERS_FILE,
    EVALUATION_FILE,
    GOLDEN_FILE,
    REPORT_FILE,
    SAFETENSORS_FOLDER,
    TRANSFER_FILE,
    VERDICT_FILE,
    dataset_folder,
    evaluation_folder,
    model_folder,
)
from finetune_contract.artifacts import ArtifactKind, Example
from finetune_contract.run_spec import GateMetric
from finetune_contract.stage_protocol import EvaluationFacts, MetricFacts, Stage, StageReport
from finetune_trainer.artifact_files import fetch_folder, publish_folder, read_manifest
from finetune_trainer.errors import DataRejected, StoreRejected
from finetune_trainer.evaluation.answers import Answer, AnswerPair, choose_questions
from finetune_trainer.evaluation.gates import judge
from finetune_trainer.evaluation.generate import answer_questions
from finetune_trainer.evaluation.golden import golden_questions, reader_questions
from finetune_trainer.evaluation.metrics import METRICS, measure
from finetune_trainer.evaluation.report import RunFacts, render_report
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import base_model
from finetune_trainer.workspace_errors import TRAIN_SCRATCH

logger = logging.getLogger(__name__)

PASSED = "passed"


def evaluate(context: StageContext) -> StageReport:
    """Judge the model of a run, or find the verdict that is there already."""
    key = evaluation_folder(context.run_key)
    if read_manifest(context.store, key) is not None:
        logger.info("the verdict is there already: uri=%s", context.store.uri(key))
        verdict = read_verdict(context)
    else:
        verdict = _evaluate(context, key)
    words = "all gates passed" if verdict.passed else f"not good enough: {verdict.gate}"
    return StageReport(stage=Stage.EVALUATE, message=words, evaluation=verdict)


def read_verdict(context: StageContext) -> EvaluationFacts:
    """The stored verdict of the run."""
    key = f"{evaluation_folder(context.run_key)}/{VERDICT_FILE}"
    content = context.store.read(key)
    if content is None:
        raise StoreRejected(f"{context.store.uri(key)}: is missing; delete its folder to make it anew")
    try:
        return EvaluationFacts.model_validate_json(content)
    except ValidationError as error:
        raise StoreRejected(
            f"{context.store.uri(key)}: is no verdict of this version; delete its folder to make it anew"
        ) from error


def judge_answers(
    context: StageContext, pairs: list[AnswerPair]
) -> tuple[EvaluationFacts, dict[GateMetric, tuple[float | None, float | None]]]:
    """Metrics and gates of finished answers."""
    values: dict[GateMetric, tuple[float | None, float | None]] = {}
    for name, metric in METRICS.items():
        base = measure(metric, [(pair.example, pair.base) for pair in pairs])
        new = measure(metric, [(pair.example, pair.new) for pair in pairs])
        values[name] = (base.value, new.value)
    results = judge(context.spec.evaluation.gates, values)
    first_failure = next((result.failure for result in results if not result.passed), "")
    facts = EvaluationFacts(
        passed=not first_failure,
        gate=first_failure or PASSED,
        metrics=[
            MetricFacts(name=name.value, base=_rounded(base), new=_rounded(new))
            for name, (base, new) in values.items()
        ],
        report_uri=context.store.uri(f"{evaluation_folder(context.run_key)}/{REPORT_FILE}"),
        reader_questions=reader_questions(pairs),
    )
    return facts, values


def _evaluate(context: StageContext, key: str) -> EvaluationFacts:
    questions, strange = _read_questions(context)
    asked = [*questions, *strange]
    base_answers, new_answers = _answer_all(context, asked)
    answered = [
        AnswerPair(question, base, new)
        for question, base, new in zip(asked, base_answers, new_answers, strict=True)
    ]
    pairs, transfer = answered[: len(questions)], answered[len(questions) :]
    verdict, values = judge_answers(context, pairs)
    folder = context.work_folder / "evaluation"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / VERDICT_FILE).write_text(json.dumps(verdict.to_wire(), indent=2, ensure_ascii=False) + "\n")
    (folder / ANSWERS_FILE).write_text(
        "".join(
            json.dumps({"set": name, **_answer_row(pair)}, ensure_ascii=False) + "\n"
            for name, rows in (("recall", pairs), ("transfer", transfer))
            for pair in rows
        )
    )
    (folder / GOLDEN_FILE).write_text(
        "".join(
            json.dumps(golden.to_wire(), ensure_ascii=False) + "\n" for golden in golden_questions(pairs)
        ),
        encoding="utf-8",
    )
    facts = RunFacts(
        run_name=context.run_name,
        base_model=context.spec.base_model.uri,
        run_key=context.run_key,
        dataset_digest=context.dataset_digest,
    )
    results = judge(context.spec.evaluation.gates, values)
    (folder / REPORT_FILE).write_text(
        render_report(facts, verdict, results, pairs, transfer), encoding="utf-8"
    )
    publish_folder(
        context.store,
        key,
        folder,
        ArtifactKind.EVALUATION,
        {
            "runKey": context.run_key,
            "passed": verdict.passed,
            "gate": verdict.gate,
            "questions": len(answered),
        },
    )
    return verdict


def _read_questions(context: StageContext) -> tuple[list[Example], list[Example]]:
    """The recall set and the transfer set; the second is empty on a small site, and half as large at most."""
    folder = context.work_folder / "dataset"
    rows_alone = (EVALUATION_FILE, TRANSFER_FILE)  # what tells of them may be stored anew meanwhile
    fetch_folder(context.store, dataset_folder(context.dataset_digest), folder, only_below=rows_alone)
    limit = context.spec.evaluation.max_questions
    questions = choose_questions(_examples(folder / EVALUATION_FILE), limit)
    if not questions:
        raise DataRejected(
            "spec.dataset.split.evaluation: no question was kept back for the evaluation; raise it"
        )
    return questions, choose_questions(_examples(folder / TRANSFER_FILE), limit // 2)


def _examples(path: Path) -> list[Example]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [Example.model_validate_json(line) for line in lines]


def _answer_all(context: StageContext, questions: list[Example]) -> tuple[list[Answer], list[Answer]]:
    base_folder = base_model.fetch(context, scratch=TRAIN_SCRATCH)
    model = context.work_folder / "model"
    fetch_folder(context.store, model_folder(context.run_key), model, only_below=f"{SAFETENSORS_FOLDER}/")
    total = 2 * len(questions)

    def ask(folder: Path, already: int, words: str) -> list[Answer]:
        context.progress(already, total, message=words)
        done: Callable[[int], None] = lambda count: context.progress(already + count, total, message=words)  # noqa: E731
        return answer_questions(
            folder,
            context.spec.dataset.prompt_format,
            questions,
            context.spec.evaluation.max_answer_tokens,
            done,
        )

    new = ask(model / SAFETENSORS_FOLDER, 0, "asking the new model")
    base = ask(base_folder, len(questions), "asking the base model")
    return base, new


def _answer_row(pair: AnswerPair) -> dict[str, object]:
    example = pair.example
    return {
        "id": example.id,
        "kind": example.kind.value,
        "question": example.question,
        "documentUrl": example.document_url,
        "expected": example.answer,
        "mustContain": example.must_contain,
        "base": {"text": pair.base.text, "stopped": pair.base.stopped},
        "new": {"text": pair.new.text, "stopped": pair.new.stopped},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
