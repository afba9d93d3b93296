"""dataset.html in a real browser: it asks nobody for anything, complains about nothing, and the verdict is in sight."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from finetune_contract.artifacts import ChatMessage, Document, Example
from finetune_contract.run_spec import ExampleKind
from finetune_trainer.dataset.alike_documents import NamedDocument
from finetune_trainer.dataset.built_dataset import BuiltDataset, GeneratorUse
from finetune_trainer.dataset.report import render_report
from finetune_trainer.dataset.sources.raw_document import DroppedDocument
from finetune_trainer.dataset.step_counts import count_step

pytestmark = pytest.mark.in_browser

ROOTS = [
    "Blogs",
    "Documentation",
    "Visits and opening hours",
    "A category with a name that is far too long for one line",
]


def a_dataset() -> BuiltDataset:
    documents = tuple(
        Document(
            source="site",
            post_id=str(number),
            post_title=f"Page {number}",
            post_excerpt="",
            post_content="word " * (40 + number * 7 % 300),
            post_date="2025-01-01T00:00:00Z",
            post_author="",
            post_categories=[ROOTS[number * 7 % 11 % 4]],
            post_tags=[],
            post_url=f"https://mill.example/{number}/",
        )
        for number in range(60)
    )
    kinds = list(ExampleKind)
    rows = tuple(
        Example(
            id=f"{number:064x}",
            kind=kinds[number * 7 % 11 % len(kinds)],
            document_url=documents[number % 60].post_url,
            template="what-is",
            question=f"What does a ticket for {number} people cost?",
            prompt=[ChatMessage(role="user", content="[1] Prices\n" + "It costs. " * (number % 60))],
            answer="A ticket costs £7.40. " + "Come in. " * (number % 13) + "[1]",
            must_contain=["£7.40"],
        )
        for number in range(900)
    )
    return BuiltDataset(
        documents=documents,
        training=rows[:700],
        evaluation=rows[700:800],
        transfer=rows[800:],
        dropped=(DroppedDocument("site", "9", "https://mill.example/9/", "no text is left after cleaning"),)
        * 3,
        alike=(
            tuple(
                NamedDocument(f"Minutes of meeting {n}", f"https://mill.example/minutes-{n}/")
                for n in range(17)
            ),
            (
                NamedDocument("Opening hours", "https://mill.example/hours/"),
                NamedDocument("Opening hours (old)", "https://mill.example/hours-2019/"),
            ),
        ),
        generator=GeneratorUse(120, 2000, pairs=400, kept=310),
        steps=(
            count_step("sources", "documents", 64, 63, ["password-protected"]),
            count_step("cleaning", "documents", 63, 60, ["no text is left after cleaning"] * 3),
            count_step("examples", "examples", 1400, 900, {"a near duplicate of another question": 500}),
        ),
        personal_data={"e-mail": 4, "phone": 2},
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_is_whole_without_a_network_and_shows_its_verdict_at_once(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    file = tmp_path / "dataset.html"
    file.write_text(render_report(a_dataset(), "5eed" * 16), encoding="utf-8")
    page = await browser.new_page(
        viewport={"width": 1280, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
    )
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    await page.goto(file.as_uri())

    assert [url for url in requests if not url.startswith("data:")] == [file.as_uri()]
    assert complaints == []
    await expect(page.get_by_text("700 training examples are under 1,000")).to_be_in_viewport()
    width = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width == 0
    await page.screenshot(path=tmp_path / "dataset.png", full_page=True)
