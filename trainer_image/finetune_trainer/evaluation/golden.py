"""Questions whose answers prove a model server: the new model has answered them right, and must do so there, too."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import ValidationError

from finetune_contract.artifacts import Example, GoldenQuestion
from finetune_contract.run_spec import ExampleKind, GateMetric
from finetune_contract.stage_protocol import MOST_READER_QUESTIONS, READER_QUESTIONS_BYTES, ReaderQuestion
from finetune_trainer.evaluation.answers import Answer, AnswerPair, choose_questions
from finetune_trainer.evaluation.metrics import METRICS

MOST = 20
_TELLING = (GateMetric.ANSWER_RECALL, GateMetric.REFUSAL_ACCURACY)
"""Metrics that say whether an answer is right."""
_FROM_SOURCES = (ExampleKind.GROUNDED, ExampleKind.GENERATED)


def golden_questions(pairs: Sequence[AnswerPair]) -> list[GoldenQuestion]:
    """The first of every kind, then the second: the first few are a good mixture, too."""
    right = {pair.example.id: pair for pair in pairs if _is_right(pair.example, pair.new)}
    chosen = choose_questions([pair.example for pair in right.values()], MOST)
    return [_golden(example, right[example.id].new) for example in chosen]


def reader_questions(pairs: Sequence[AnswerPair]) -> list[ReaderQuestion]:
    """Those of them that a site can be asked: alone, and answered from the sources that it finds by itself.

    A refusal is none: it was right for the sources that were shown, and the site finds better ones.
    """
    with_sources = [
        pair for pair in pairs if pair.example.kind in _FROM_SOURCES and pair.example.must_contain
    ]
    found: list[ReaderQuestion] = []
    room = READER_QUESTIONS_BYTES
    for golden in golden_questions(with_sources):
        try:
            question = ReaderQuestion(question=golden.question, must_contain=golden.must_contain)
        except ValidationError:  # too long to be carried in a report
            continue
        size = len(json.dumps(question.to_wire()))
        if size <= room and len(found) < MOST_READER_QUESTIONS:
            found.append(question)
            room -= size
    return found


def _is_right(example: Example, answer: Answer) -> bool:
    scores = [METRICS[name].score(example, answer) for name in _TELLING if METRICS[name].applies(example)]
    return answer.stopped and bool(scores) and min(scores) == 1.0


def _golden(example: Example, answer: Answer) -> GoldenQuestion:
    return GoldenQuestion(
        id=example.id,
        question=example.question,
        prompt=example.prompt,
        must_contain=[] if example.kind is ExampleKind.REFUSAL else example.must_contain,
        answer=answer.text,
    )
