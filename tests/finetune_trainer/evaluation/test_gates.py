from __future__ import annotations

import pytest

from finetune_contract.run_spec import GateMetric, GateSpec
from finetune_trainer.evaluation.gates import judge

RECALL = GateMetric.ANSWER_RECALL


def failure(gate: GateSpec, base: float | None, new: float | None) -> str:
    return judge([gate], {gate.metric: (base, new)})[0].failure


@pytest.mark.parametrize(
    ("gate", "base", "new", "expected"),
    [
        (
            GateSpec(metric=RECALL, minimum_gain=0.05),
            0.40,
            0.41,
            "answer_recall 0.41 is under base 0.40 + 0.05",
        ),
        (GateSpec(metric=RECALL, minimum_gain=0.05), 0.40, 0.45, ""),
        (GateSpec(metric=RECALL, minimum_gain=-0.02), 0.40, 0.39, ""),
        (GateSpec(metric=RECALL, minimum=0.7), 0.1, 0.69, "answer_recall 0.69 is under 0.70"),
        (GateSpec(metric=RECALL, minimum=0.7), 0.9, 0.7, ""),
        (
            GateSpec(metric=RECALL, minimum=0.7, minimum_gain=0.1),
            0.6,
            0.65,
            "answer_recall 0.65 is under 0.70; answer_recall 0.65 is under base 0.60 + 0.10",
        ),
        (GateSpec(metric=RECALL, minimum=0.8), 0.1, 0.796, "answer_recall 0.796 is under 0.800"),
        (GateSpec(metric=RECALL, minimum=0.8), 0.1, 0.7999996, "answer_recall 0.7999996 is under 0.8000000"),
        (GateSpec(metric=RECALL, minimum=0.805), 0.1, 0.8, "answer_recall 0.800 is under 0.805"),
        (
            GateSpec(metric=RECALL, minimum_gain=0.05),
            0.5449,
            0.594,
            "answer_recall 0.594 is under base 0.545 + 0.050",
        ),
        (
            GateSpec(metric=RECALL, minimum=0.7),
            None,
            None,
            "answer_recall was not measured: no question asks for it",
        ),
    ],
)
def test_a_gate_fails_in_words_or_holds(gate: GateSpec, base: float | None, new: float | None, expected: str):
    assert failure(gate, base, new) == expected


def test_a_gate_says_what_it_asks():
    gate = GateSpec(metric=RECALL, minimum=0.7, minimum_gain=0.05)

    assert judge([gate], {})[0].wish == "answer_recall at least 0.70 and at least +0.05 against base"


def test_what_a_gate_asks_is_not_rounded():
    gate = GateSpec(metric=RECALL, minimum=0.805, minimum_gain=-0.005)

    assert judge([gate], {})[0].wish == "answer_recall at least 0.805 and at least -0.005 against base"


def test_a_metric_that_was_never_measured_fails_its_gate():
    assert not judge([GateSpec(metric=RECALL, minimum=0.0)], {})[0].passed
