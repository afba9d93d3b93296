"""training.html in a real browser: it asks nobody for anything, complains about nothing, and its curves are drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.training.loop import StepRecord, learning_rate
from finetune_trainer.training.training_report import describe, render_report

pytestmark = pytest.mark.in_browser


def a_log(steps: int = 120) -> list[StepRecord]:
    """A run that was kept twice, went on once, and learned a little too long."""
    log = [
        StepRecord(
            step=step,
            loss=0.4 + 2.2 * math.exp(-step / 22) + 0.12 * math.sin(step * 2.7) * math.exp(-step / 80),
            learning_rate=learning_rate(step - 1, steps, 0.0015, 0.1),
            gradient_norm=0.5 + 1.4 * math.exp(-step / 12) + 0.2 * math.sin(step * 1.3) ** 2,
            tokens=1900 + step * 37 % 211,
            seconds=0.41 + 0.03 * math.sin(step) + (0.5 if step in (1, 61) else 0),
            memory_bytes=int((4.2 + 0.9 * min(1, step / 9)) * 2**30),
            evaluation_loss=0.7 + 1.9 * math.exp(-step / 20) + step / 400
            if step == 1 or step % 12 == 0
            else None,
        )
        for step in range(1, steps + 1)
    ]
    log[39] = replace(log[39], checkpoint=True)
    log[59] = replace(log[59], checkpoint=True)
    log[60] = replace(log[60], resumed=True)
    return log


FACTS = {
    "baseModel": "hf://HuggingFaceTB/SmolLM2-135M-Instruct@main",
    "baseModelDigest": "5eed" * 16,
    "datasetDigest": "da7a" * 16,
    "runKey": "beef" * 16,
    "rows": 1224,
    "rowsTooLong": 3,
    "rowsBrokenOff": 0,
    "quantization": "nf4",
    "computeDtype": "bfloat16",
    "device": "cuda",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_the_page_is_whole_without_a_network_on_any_screen(
    browser: Browser, tmp_path: Path, scheme: str, width: int
) -> None:
    file = tmp_path / "training.html"
    page_text = render_report("marrowby-tide-mill", a_log(), describe(TrainingSpec(), FACTS))
    file.write_text(page_text, encoding="utf-8")
    page = await browser.new_page(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
    )
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    await page.goto(file.as_uri())

    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    assert complaints == []
    await expect(page.get_by_role("img", name="Loss by step")).to_be_visible()
    assert (
        await page.get_by_role("img").count() == 5
    )  # the loss is there twice, for wide and for narrow screens
    await expect(page.get_by_text("The evaluation loss was lowest")).to_be_in_viewport()
    overflow = await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow == 0
    await page.screenshot(path=tmp_path / "training.png", full_page=True)
