"""Progress lines: what is said, how often, and the time that is left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from finetune_contract.stage_protocol import ProgressLine, Stage
from finetune_trainer.run_log import JsonProgress, Pace, TerminalProgress, sparkline


def test_every_line_is_one_that_the_operator_can_read() -> None:
    out = io.StringIO()

    JsonProgress(Stage.TRAIN, out, interval_seconds=0)(
        3,
        10,
        message="training",
        loss=1.23456,
        tokens_per_second=99.99,
        evaluation_loss=2.34567,
        memory_bytes=2**34,
    )

    said = ProgressLine.parse(out.getvalue())
    assert said is not None
    assert (said.step, said.total_steps, said.loss, said.tokens_per_second) == (3, 10, 1.2346, 100.0)
    assert (said.evaluation_loss, said.memory_bytes) == (2.3457, 2**34)


def test_quick_steps_are_thinned_out_but_the_last_is_always_said() -> None:
    out = io.StringIO()
    progress = JsonProgress(Stage.DATASET, out, interval_seconds=3600)

    for step in range(1, 101):
        progress(step, 100, message="reading")

    said = [ProgressLine.parse(line) for line in out.getvalue().splitlines()]
    assert [line.step for line in said if line] == [1, 100]


def test_the_time_left_follows_the_pace_of_this_message_alone() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])

    assert pace.eta_seconds(0, 10, "loading") is None
    now[0] = 50.0
    assert pace.eta_seconds(0, 10, "training") is None
    now[0] = 60.0
    assert pace.eta_seconds(5, 10, "training") == 10.0


def test_a_log_line_of_somebody_else_is_no_progress() -> None:
    assert ProgressLine.parse("Loading weights: 100%") is None
    assert ProgressLine.parse('{"finetune": "progress", "stage": "cooking"}') is None


def test_a_line_of_a_newer_trainer_is_read_without_what_is_new() -> None:
    said = ProgressLine.parse('{"finetune": "progress", "stage": "train", "step": 7, "moonPhase": "full"}')

    assert said is not None
    assert said.step == 7


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], "█▇▆▅▄▃▂▁"),
        ([4.0] * 500 + [0.0] * 500, "████▁▁▁▁"),
    ],
)
def test_a_sparkline_is_as_high_as_its_values_and_never_too_wide(values: list[float], line: str) -> None:
    assert sparkline(values, 8) == line


def test_a_terminal_shows_the_curve_of_the_loss_pace_and_memory_in_eighty_columns() -> None:
    screen = io.StringIO()
    progress = TerminalProgress(
        Stage.TRAIN, Console(file=screen, width=80, force_terminal=True, color_system=None)
    )

    for step in range(1, 101):
        progress(
            step,
            100,
            message="training",
            loss=3 / step,
            tokens_per_second=12_345.0,
            evaluation_loss=1.5,
            memory_bytes=3 * 2**29,
        )
    progress.close()

    last = [line for line in screen.getvalue().splitlines() if "tokens/s" in line][-1]
    assert last.startswith("loss █▃▂▂▂▁")
    assert last.rstrip().endswith("0.030  evaluation 1.500  12,345 tokens/s  1.5 GiB")
    assert "100/100" in screen.getvalue()
