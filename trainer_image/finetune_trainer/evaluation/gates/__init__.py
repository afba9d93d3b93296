"""Conditions on the metrics, one file each. A new one is a field of GateSpec, a file and a line in RULES."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from finetune_contract.run_spec import GateMetric, GateSpec
from finetune_trainer.evaluation.gates import minimum, minimum_gain
from finetune_trainer.evaluation.gates.digits import digits_of

Rule = Callable[[GateSpec, float | None, float | None], str | None]
"""(gate, base, new) -> why it fails, in words; None when it holds or does not ask."""

RULES: tuple[Rule, ...] = (minimum.failure, minimum_gain.failure)


@dataclass(frozen=True)
class GateResult:
    """One gate of the spec and how it ended."""

    gate: GateSpec
    failure: str
    """Empty when it holds."""

    @property
    def passed(self) -> bool:
        """It holds."""
        return not self.failure

    @property
    def wish(self) -> str:
        """What the gate asks, in words."""
        parts = []
        if self.gate.minimum is not None:
            parts.append(f"at least {self.gate.minimum:.{digits_of(self.gate.minimum)}f}")
        if self.gate.minimum_gain is not None:
            gain = self.gate.minimum_gain
            parts.append(f"at least {gain:+.{digits_of(gain)}f} against base")
        return f"{self.gate.metric.value} {' and '.join(parts)}"


def judge(
    gates: Sequence[GateSpec], values: Mapping[GateMetric, tuple[float | None, float | None]]
) -> list[GateResult]:
    """Every gate of the spec against (base, new) of its metric. What was not measured fails."""
    results = []
    for gate in gates:
        base, new = values.get(gate.metric, (None, None))
        failures = [failure for rule in RULES if (failure := rule(gate, base, new))]
        results.append(GateResult(gate, "; ".join(failures)))
    return results
