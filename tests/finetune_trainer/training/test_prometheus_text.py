"""metrics.prom: the format that node-exporter reads, and never half a file."""

from __future__ import annotations

import re
from pathlib import Path

from finetune_trainer.training.prometheus_text import METRICS_FILE, metrics_text, write_whole


def test_every_metric_has_its_help_its_kind_and_one_sample() -> None:
    text = metrics_text(
        "site", {"step": 3, "loss": 1.25, "tokens_total": 12_345_678, "evaluation_loss": None}
    )

    assert text.splitlines() == [
        "# HELP finetune_training_step Optimizer steps done.",
        "# TYPE finetune_training_step gauge",
        'finetune_training_step{run="site"} 3',
        "# HELP finetune_training_loss Mean training loss of the last step.",
        "# TYPE finetune_training_loss gauge",
        'finetune_training_loss{run="site"} 1.25',
        "# HELP finetune_training_tokens_total Tokens trained.",
        "# TYPE finetune_training_tokens_total counter",
        'finetune_training_tokens_total{run="site"} 12345678',
    ]


def test_times_and_bytes_keep_all_their_digits() -> None:
    text = metrics_text(
        "site", {"memory_bytes": 84_987_654_321, "last_step_timestamp_seconds": 1_795_636_800.25}
    )

    assert re.findall(r"} (\S+)", text) == ["84987654321", "1795636800.25"]


def test_a_name_cannot_break_out_of_its_label() -> None:
    assert r'{run="a\"b\\c\nd"} 1' in metrics_text('a"b\\c\nd', {"step": 1})


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    write_whole(path, "old\n")
    with path.open() as reader:
        write_whole(path, "new\n")
        assert reader.read() == "old\n"

    assert path.read_text() == "new\n"
    assert [file.name for file in tmp_path.iterdir()] == [METRICS_FILE]
