"""Asking a real HTTP server as readers do, in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web

from finetune_contract.stage_protocol import ReaderQuestion
from finetune_operator import service_answers
from finetune_operator.observed import ServiceFacts
from finetune_operator.service_answers import TRIES, Asked, ServiceAsker

MODEL = "sha256:new"
QUESTIONS = tuple(
    ReaderQuestion(question=f"What is {number}?", must_contain=[f"No. {number}"]) for number in range(2)
)


def said(answer: str = "It is so.", model: str = MODEL, **more: object) -> web.Response:
    return web.json_response({"answer": answer, "model": model} | more)


@dataclass
class Site:
    """A site whose answers a test sets."""

    port: int = 0
    readyz: Callable[[], web.Response] = lambda: web.json_response({"model": MODEL})
    chat: Callable[[], web.Response] = said
    asked: list[str] = field(default_factory=list)
    pings: int = 0

    async def answer_ping(self, _: web.Request) -> web.Response:
        self.pings += 1
        return self.readyz()

    async def answer_chat(self, request: web.Request) -> web.Response:
        self.asked.append((await request.json())["question"])
        return self.chat()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    application = web.Application()
    application.router.add_get("/readyz", site.answer_ping)
    application.router.add_post("/api/chat", site.answer_chat)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.port = runner.addresses[0][1]
    yield site
    await runner.cleanup()


@pytest.fixture
async def asker() -> AsyncIterator[ServiceAsker]:
    asker = ServiceAsker(every_seconds=0.01, busy_seconds=0.01)
    yield asker
    await asker.close()


def wish(site: Site, **changes: object) -> Asked:
    asked = Asked("site", "127.0.0.1", site.port, "/api/chat", MODEL, watching=False, questions=QUESTIONS)
    return replace(asked, **changes)  # type: ignore[arg-type]


async def until(
    asker: ServiceAsker, asked: Asked, holds: Callable[[ServiceFacts], bool], key: str = "blog"
) -> ServiceFacts:
    for _ in range(500):
        facts = asker.look(key, asked)
        if holds(facts):
            return facts
        await asyncio.sleep(0.01)
    raise AssertionError(f"not so: {facts}")


async def test_the_first_look_waits_for_nothing_and_later_ones_tell_what_has_come(site, asker):
    first = asker.look("blog", wish(site))
    later = await until(asker, wish(site), lambda facts: facts.switching.answered > 2)

    assert first == ServiceFacts("site")
    assert later.switching.failed == 0
    assert dict(later.switching.named)[MODEL] == later.switching.answered
    assert later.answers == ()
    assert site.asked == []


async def test_the_switch_and_the_observation_are_counted_apart(site, asker):
    await until(asker, wish(site), lambda facts: facts.switching.answered > 1)
    watched = await until(asker, wish(site, watching=True), lambda facts: facts.watched.answered > 2)
    again = await until(asker, wish(site, watching=True), lambda facts: facts.watched.answered > 4)

    assert again.switching == watched.switching


async def test_what_fails_before_the_first_answer_is_told_apart_from_what_fails_after_it(site, asker):
    site.readyz = lambda: web.Response(status=503)
    early = await until(asker, wish(site), lambda facts: facts.switching.unanswered > 1)
    site.readyz = lambda: web.json_response({"model": MODEL})
    await until(asker, wish(site), lambda facts: facts.switching.answered > 1)
    site.readyz = lambda: web.Response(status=502)
    late = await until(asker, wish(site), lambda facts: facts.switching.failed > 1)

    assert early.switching.failed == 0
    assert late.switching.problem.endswith("/readyz gave status 502")


async def test_a_service_that_is_not_there_is_counted_and_breaks_nothing(site, asker):
    facts = await until(asker, wish(site, port=9), lambda facts: facts.switching.unanswered > 1)

    assert "GET http://127.0.0.1:9/readyz" in facts.switching.problem


async def test_questions_are_asked_once_each_after_the_switch(site, asker):
    asked = wish(site, watching=True)

    facts = await until(asker, asked, lambda facts: len(facts.answers) == 2)
    await until(asker, asked, lambda facts: facts.watched.answered > 5)

    assert [one.answer for one in facts.answers] == ["It is so.", "It is so."]
    assert site.asked == ["What is 0?", "What is 1?"]


@pytest.mark.parametrize(
    ("chat", "tells", "tries", "failed"),
    [
        (lambda: web.Response(status=502), True, TRIES, True),
        (lambda: said("Search results.", degraded=True), True, TRIES, True),
        (lambda: web.Response(status=429), False, TRIES, False),
        (lambda: said(model="sha256:other"), False, TRIES, False),
        (lambda: web.Response(status=404), False, 1, False),
        (lambda: web.Response(status=400, text="DisallowedHost"), False, 1, False),
        (lambda: web.json_response({"choices": []}), False, 1, False),
        (lambda: web.Response(text="<html>"), False, 1, False),
    ],
    ids=["error", "degraded", "full", "another model", "no chat", "not for us", "another API", "a page"],
)
async def test_a_question_without_an_answer_is_tried_again_where_that_may_help(
    site, asker, chat, tells, tries, failed
):
    site.chat = chat
    asked = wish(site, watching=True, questions=QUESTIONS[:1])
    await until(asker, asked, lambda facts: facts.watched.answered > 0)

    facts = await until(asker, asked, lambda facts: len(facts.answers) == 1)

    (answer,) = facts.answers
    assert (answer.answer, answer.tells) == ("", tells)
    assert "POST http://127.0.0.1" in answer.problem
    assert len(site.asked) == tries
    assert (facts.watched.failed > 0) is failed


async def test_other_questions_are_asked_anew(site, asker):
    await until(asker, wish(site, watching=True), lambda facts: len(facts.answers) == 2)

    fewer = wish(site, watching=True, questions=QUESTIONS[1:])
    facts = await until(asker, fewer, lambda facts: len(facts.answers) == 1)

    assert [one.question for one in facts.answers] == [QUESTIONS[1]]


async def test_a_target_that_is_changed_again_is_counted_anew(site, asker):
    await until(asker, wish(site), lambda facts: facts.switching.answered > 3)

    assert asker.look("blog, changed again", wish(site)) == ServiceFacts("site")


async def test_asking_ends_at_once_for_a_run_that_takes_its_model_back_and_for_no_other(site, asker):
    for key in ("uid-1 chat", "uid-2 chat"):
        await until(asker, wish(site), lambda facts: facts.switching.answered > 1, key)

    asker.end("uid-1")
    await asyncio.sleep(0.02)

    assert asker.asking == 1
    assert asker.look("uid-2 chat", wish(site)).switching.answered > 1


async def test_asking_ends_when_nobody_looks_any_more(site, asker, monkeypatch):
    monkeypatch.setattr(service_answers, "FORGOTTEN_SECONDS", 0.05)
    await until(asker, wish(site), lambda facts: facts.switching.answered > 1)
    await asyncio.sleep(0.3)
    before = site.pings
    await asyncio.sleep(0.1)

    assert site.pings == before
    assert asker.asking == 0
