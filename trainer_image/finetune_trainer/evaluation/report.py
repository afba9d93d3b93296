"""report.html: one file without a network, the verdict first. Must not know how answers were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Template

from finetune_contract.artifacts import Example
from finetune_contract.run_spec import ExampleKind, GateMetric
from finetune_contract.stage_protocol import EvaluationFacts
from finetune_trainer.evaluation.answers import Answer, AnswerPair, wilson_interval
from finetune_trainer.evaluation.gates import GateResult
from finetune_trainer.evaluation.metrics import METRICS, Measured, measure
from finetune_trainer.page_template import page_template

SHOWN = 8
"""Questions in each list of examples."""


@dataclass(frozen=True)
class RunFacts:
    """What the report says about the run."""

    run_name: str
    base_model: str
    run_key: str
    dataset_digest: str


@dataclass(frozen=True)
class Bar:
    """One model's value of a metric with its 95 % interval, all from 0 to 1."""

    value: float | None
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class MetricRow:
    """A metric for both models."""

    name: str
    title: str
    base: Bar
    new: Bar


@dataclass(frozen=True)
class KindRow:
    """Mean score of one kind of question."""

    kind: str
    count: int
    base: float
    new: float


@dataclass(frozen=True)
class AnswerRow:
    """A question with both answers, each with its score."""

    pair: AnswerPair
    base_score: float
    new_score: float


def question_score(example: Example, answer: Answer) -> float:
    """How good one answer is: refused when it should be, else the fact, else the shared words."""
    order = (GateMetric.REFUSAL_ACCURACY, GateMetric.ANSWER_RECALL, GateMetric.ANSWER_F1)
    metric = next(METRICS[name] for name in order if METRICS[name].applies(example))
    return metric.score(example, answer)


def render_report(
    facts: RunFacts,
    verdict: EvaluationFacts,
    gates: Sequence[GateResult],
    pairs: Sequence[AnswerPair],
    transfer: Sequence[AnswerPair] = (),
) -> str:
    """The page as HTML. Every text is escaped.

    Args:
        facts: what is said about the run.
        verdict: how it ended.
        gates: of the run, judged.
        pairs: the recall set, about documents that were taught.
        transfer: the transfer set, about documents that were not.
    """
    rows = _answer_rows(pairs)
    by_new = sorted(
        rows, key=lambda row: (row.new_score, row.new_score - row.base_score, row.pair.example.id)
    )
    wrong = [row for row in by_new if row.new_score < 1]
    gained = [row for row in reversed(by_new) if row.new_score == 1 and row.new_score > row.base_score]
    return _template().render(
        facts=facts,
        verdict=verdict,
        gates=gates,
        questions=len(pairs),
        metrics=[_metric_row(name, pairs) for name in METRICS],
        kinds=_kind_rows(rows),
        transfer=len(transfer),
        transfer_metrics=[_metric_row(name, transfer) for name in METRICS],
        transfer_kinds=_kind_rows(_answer_rows(transfer)),
        wrong=wrong[:SHOWN],
        wrong_count=len(wrong),
        gained=gained[:SHOWN],
        gained_count=len(gained),
    )


def _answer_rows(pairs: Sequence[AnswerPair]) -> list[AnswerRow]:
    return [
        AnswerRow(pair, question_score(pair.example, pair.base), question_score(pair.example, pair.new))
        for pair in pairs
    ]


def _metric_row(name: GateMetric, pairs: Sequence[AnswerPair]) -> MetricRow:
    metric = METRICS[name]
    base = measure(metric, [(pair.example, pair.base) for pair in pairs])
    new = measure(metric, [(pair.example, pair.new) for pair in pairs])
    return MetricRow(name.value, metric.title, _bar(base), _bar(new))


def _bar(measured: Measured) -> Bar:
    low, high = wilson_interval(measured.value or 0.0, measured.count)
    return Bar(measured.value, low, high, measured.count)


def _kind_rows(rows: Sequence[AnswerRow]) -> list[KindRow]:
    kinds = []
    for kind in ExampleKind:
        of_kind = [row for row in rows if row.pair.example.kind is kind]
        if of_kind:
            kinds.append(
                KindRow(
                    kind.value.replace("_", " "),
                    len(of_kind),
                    sum(row.base_score for row in of_kind) / len(of_kind),
                    sum(row.new_score for row in of_kind) / len(of_kind),
                )
            )
    return kinds


@cache
def _template() -> Template:
    return page_template(
        "finetune_trainer.evaluation",
        "report.html.j2",
        {"percent": lambda value: "–" if value is None else f"{100 * value:.0f} %"},
    )
