"""training.html: result and warnings first, marks where training stopped, everything escaped, no network."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.training.loop import StepRecord
from finetune_trainer.training.training_report import describe, in_bytes, in_words, render_report, warnings


def a_log(steps: int = 30, evaluated: tuple[float, ...] = (2.0, 1.5, 1.2)) -> list[StepRecord]:
    log = [
        StepRecord(step, 2.5 / step**0.3, 1e-3, 1.5 if step < 4 else 0.5, 1000, 0.5, memory_bytes=3 * 2**30)
        for step in range(1, steps + 1)
    ]
    for number, loss in enumerate(evaluated):
        place = number * (steps - 1) // max(1, len(evaluated) - 1)
        log[place] = replace(log[place], evaluation_loss=loss)
    return log


def test_a_good_run_says_what_it_came_to_before_anything_else() -> None:
    page = render_report("marrowby", a_log(), {"Seed": "42"})

    header = page.split("</header>")[0]
    assert "marrowby: <strong>done</strong>" in header
    assert "the loss went from 2.000 to 1.200 in 30 steps" in header
    assert "30,000" in page
    assert "3.00 GiB" in page
    assert "3 of 30 steps were cut down to the dashed line" in page


def test_a_run_that_learned_by_heart_is_told_so_with_the_step() -> None:
    found = warnings(a_log(evaluated=(2.0, 1.2, 1.5)))

    assert found == [
        "The evaluation loss was lowest after step 15 (1.200) and rose to 1.500: "
        "from there on the model learned its rows by heart. Train fewer steps."
    ]
    assert warnings(a_log(evaluated=(2.0, 1.2, 1.22))) == []


def test_a_loss_that_did_not_fall_is_told_with_the_remedy() -> None:
    level = [replace(record, loss=2.0) for record in a_log()]

    assert "The loss did not fall: 2.000 at first, 2.000 at the end. Raise learningRate" in warnings(level)[0]


def test_checkpoints_and_resumes_are_marked_and_only_then_explained() -> None:
    log = a_log()
    assert "checkpoint" not in render_report("r", log, {}).split("<main>")[1]
    log[9] = replace(log[9], checkpoint=True)
    log[10] = replace(log[10], resumed=True)

    page = render_report("r", log, {}).split("<main>")[1]

    assert page.count('class="checkpoint"') == 2
    assert page.count('class="resume"') == 6
    assert "step 11: loss" in page
    assert "gone on from a checkpoint" in page


@pytest.mark.parametrize("steps", [1, 2, 39, 40, 5000])
def test_runs_of_any_length_have_a_page_of_bearable_size(steps: int) -> None:
    page = render_report("r", a_log(steps, evaluated=()), {})

    assert len(page) < 150_000
    assert "nan" not in page
    assert page.count("<svg") == 6
    assert "evaluation loss" not in page


def test_the_page_needs_no_network_and_no_script() -> None:
    page = render_report("r", a_log(), {"Base model": "https://hf.example/<model>"})

    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", page) == ["data:,"]
    assert not re.search(r"url\(|@import|<script", page)


def test_what_a_run_says_of_itself_is_escaped() -> None:
    page = render_report("<i>run</i>", a_log(), {"<b>name</b>": "<script>alert(1)</script>"})

    assert "<script>" not in page
    assert "<i>" not in page
    assert "&lt;b&gt;name&lt;/b&gt;" in page


def test_spec_and_facts_are_told_in_words() -> None:
    spec = TrainingSpec.model_validate({"learningRate": 0.0015, "warmupRatio": 0.1, "microBatchSize": 8})
    facts = {
        "baseModel": "hf://a/b@c",
        "baseModelDigest": "e" * 64,
        "datasetDigest": "d" * 64,
        "runKey": "k" * 64,
        "rows": 1224,
        "rowsTooLong": 3,
        "rowsBrokenOff": 1,
        "quantization": "nf4",
        "computeDtype": "bfloat16",
        "device": "cuda",
    }

    told = describe(spec, facts)

    assert told["Rows"] == "1,224, and 4 left out"
    assert told["Learning rate"] == "up to 0.0015 over the first 10% of the steps, then down to 5% of it"
    assert told["Weights"] == "nf4, its scales quantized again; computed in bfloat16 on cuda"
    assert told["Batch"] == "16 examples a step, 8 at a time, up to 1,024 tokens each"


@pytest.mark.parametrize(
    ("seconds", "words"), [(4.26, "4.3 s"), (48.4, "48 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_times_are_said_as_a_person_says_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_memory_is_said_in_the_unit_that_fits() -> None:
    assert (in_bytes(300 * 2**20), in_bytes(5 * 2**29)) == ("300 MiB", "2.50 GiB")
