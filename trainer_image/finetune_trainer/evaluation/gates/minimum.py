"""The new model must reach a value."""

from __future__ import annotations

from finetune_contract.run_spec import GateSpec
from finetune_trainer.evaluation.gates.digits import digits_under

_ROUNDING = 1e-9


def failure(gate: GateSpec, base: float | None, new: float | None) -> str | None:
    """Why the gate fails, in words."""
    if gate.minimum is None:
        return None
    if new is None:
        return f"{gate.metric.value} was not measured: no question asks for it"
    if new + _ROUNDING < gate.minimum:
        digits = digits_under(new, gate.minimum)
        return f"{gate.metric.value} {new:.{digits}f} is under {gate.minimum:.{digits}f}"
    return None
