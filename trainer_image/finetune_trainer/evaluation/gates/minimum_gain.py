"""The new model must be better than the base model by an amount."""

from __future__ import annotations

from finetune_contract.run_spec import GateSpec
from finetune_trainer.evaluation.gates.digits import digits_under

_ROUNDING = 1e-9


def failure(gate: GateSpec, base: float | None, new: float | None) -> str | None:
    """Why the gate fails, in words."""
    if gate.minimum_gain is None:
        return None
    if new is None or base is None:
        return f"{gate.metric.value} was not measured: no question asks for it"
    if new + _ROUNDING < base + gate.minimum_gain:
        digits = digits_under(new, gate.minimum_gain, base)
        wanted = f"base {base:.{digits}f} + {gate.minimum_gain:.{digits}f}"
        return f"{gate.metric.value} {new:.{digits}f} is under {wanted}"
    return None
