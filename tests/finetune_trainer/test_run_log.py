"""Progress lines: what is said, how often, and the time that is left."""

from __future__ import annotations

import io

from finetune_contract.stage_protocol import ProgressLine, Stage
from finetune_trainer.run_log import JsonProgress, Pace


def test_every_line_is_one_that_the_operator_can_read() -> None:
    out = io.StringIO()

    JsonProgress(Stage.TRAIN, out, interval_seconds=0)(
        3, 10, message="training", loss=1.23456, tokens_per_second=99.99
    )

    said = ProgressLine.parse(out.getvalue())
    assert said is not None
    assert (said.step, said.total_steps, said.loss, said.tokens_per_second) == (3, 10, 1.2346, 100.0)


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
