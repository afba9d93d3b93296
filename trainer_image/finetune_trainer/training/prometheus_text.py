"""The newest numbers of a training in Prometheus' text format, for node-exporter's textfile collector or a sidecar.

A file is written and nothing is served. Must not know how the numbers came about.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

METRICS_FILE = "metrics.prom"

_KINDS: dict[str, tuple[str, str]] = {
    "step": ("gauge", "Optimizer steps done."),
    "planned_steps": ("gauge", "Optimizer steps in all."),
    "loss": ("gauge", "Mean training loss of the last step."),
    "evaluation_loss": ("gauge", "Loss on questions that training never sees, as last measured."),
    "learning_rate": ("gauge", "Learning rate of the last step."),
    "gradient_norm": ("gauge", "Norm of the last step's gradient before clipping."),
    "tokens_total": ("counter", "Tokens trained."),
    "tokens_per_second": ("gauge", "Tokens a second in the last step."),
    "memory_bytes": ("gauge", "Most GPU memory used so far, or the process's memory on a CPU."),
    "last_step_timestamp_seconds": ("gauge", "When the last step ended, Unix time."),
}


def metrics_text(run_name: str, values: Mapping[str, float | None]) -> str:
    """One sample a metric, labelled with the run; what is not known is left out."""
    label = run_name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    lines = []
    for name, value in values.items():
        if value is None:
            continue
        kind, words = _KINDS[name]
        full = f"finetune_training_{name}"
        lines += [f"# HELP {full} {words}", f"# TYPE {full} {kind}", f'{full}{{run="{label}"}} {value:.12g}']
    return "\n".join(lines) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Whoever reads at any moment finds the old file or the new one, never a half."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
