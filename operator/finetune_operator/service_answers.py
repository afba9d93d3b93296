"""Asks Services of targets over HTTP, in the background: which model, once a second, and golden questions.

What came is counted in memory: a new leader begins to count anew. Nobody waits for an answer here; a look tells what
has come so far, and asking ends by itself when nobody looks any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

import aiohttp

from finetune_contract.stage_protocol import ReaderQuestion
from finetune_operator.http_answers import OK, HttpAnswer, ask, http_session, url_host
from finetune_operator.observed import ReaderAnswer, ServiceFacts
from finetune_operator.rollout.service_check import ANSWER_SECONDS

logger = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
REQUEST_SECONDS = 5.0
"""As long as a probe waits."""
FORGOTTEN_SECONDS = 60.0
"""Asking ends when nobody has looked for so long."""
TRIES = 3
"""Of a question that gets no answer."""
BUSY_SECONDS = 3.0
BUSY = 429
MOST_MODELS = 8
"""That a Service may name; what is behind it decides."""


@dataclass(frozen=True)
class Asked:
    """What a look wants to be asked."""

    name: str
    ip: str
    port: int
    chat_path: str
    model_id: str
    watching: bool
    """Every new pod is available: answers count for the observation, and questions are asked."""
    questions: tuple[ReaderQuestion, ...] = ()

    @property
    def address(self) -> str:
        """Beginning of its URLs."""
        return f"http://{url_host(self.ip)}:{self.port}"


class ServiceAsker:
    """The Services that are asked now."""

    def __init__(self, every_seconds: float = EVERY_SECONDS, busy_seconds: float = BUSY_SECONDS) -> None:
        self._every_seconds = every_seconds
        self._busy_seconds = busy_seconds
        self._asking: dict[str, _Asking] = {}

    def look(self, key: str, asked: Asked) -> ServiceFacts:
        """What has come so far; begins to ask at the first look.

        Args:
            key: the same for one change of one target.
        """
        for name in [name for name, one in self._asking.items() if one.forgotten]:
            self._asking.pop(name).end()
        if key not in self._asking:
            self._asking[key] = _Asking(asked, self._every_seconds, self._busy_seconds)
        return self._asking[key].look(asked)

    def end(self, beginning: str) -> None:
        """Ask nothing more for keys that begin so: the model before comes back, and nobody judges that one."""
        for key in [key for key in self._asking if key.startswith(beginning)]:
            self._asking.pop(key).end()

    async def close(self) -> None:
        """Ask nothing more."""
        tasks = [task for one in self._asking.values() for task in one.tasks]
        self.end("")
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def asking(self) -> int:
        """How many are asked."""
        return sum(any(not task.done() for task in one.tasks) for one in self._asking.values())


class _Asking:
    """One Service."""

    def __init__(self, asked: Asked, every_seconds: float, busy_seconds: float) -> None:
        self._asked = asked
        self._every_seconds = every_seconds
        self._busy_seconds = busy_seconds
        self._facts = ServiceFacts(asked.name)
        self._reached = False
        self._looked_at = asyncio.get_running_loop().time()
        self._questions: asyncio.Task[None] | None = None
        self.tasks = [self._start(self._ask_for_model())]

    @property
    def forgotten(self) -> bool:
        return asyncio.get_running_loop().time() - self._looked_at > FORGOTTEN_SECONDS

    def look(self, asked: Asked) -> ServiceFacts:
        self._looked_at = asyncio.get_running_loop().time()
        other = asked.questions != self._asked.questions
        self._asked = asked
        if asked.watching and asked.questions and (self._questions is None or other):
            if self._questions is not None:
                self._questions.cancel()
            self._facts = replace(self._facts, answers=())
            self._questions = self._start(self._ask_questions(asked.questions))
            self.tasks.append(self._questions)
        return self._facts

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"service {self._asked.name}")
        task.add_done_callback(_tell)
        return task

    async def _ask_for_model(self) -> None:
        async with http_session(REQUEST_SECONDS) as session:
            while not self.forgotten:
                began = asyncio.get_running_loop().time()
                watching = self._asked.watching
                url = f"{self._asked.address}/readyz"
                answer = await ask(session, "GET", url)
                if answer.status == OK:
                    self._count(watching, named=answer.text("model"))
                else:
                    self._count(watching, problem=answer.problem or f"GET {url} gave status {answer.status}")
                took = asyncio.get_running_loop().time() - began
                await asyncio.sleep(max(0.0, self._every_seconds - took))

    async def _ask_questions(self, questions: tuple[ReaderQuestion, ...]) -> None:
        async with http_session(ANSWER_SECONDS) as session:
            for question in questions:
                answer = await self._answer(session, question)
                self._facts = replace(self._facts, answers=(*self._facts.answers, answer))

    async def _answer(self, session: aiohttp.ClientSession, question: ReaderQuestion) -> ReaderAnswer:
        """The first answer that tells something, or why there is none after some tries."""
        found = ReaderAnswer(question, tells=False)
        for number in range(TRIES):
            if number:
                await asyncio.sleep(self._busy_seconds)
            url = f"{self._asked.address}{self._asked.chat_path}"
            answer = await ask(session, "POST", url, {"question": question.question})
            kind, problem = _meaning(answer, url, self._asked.model_id)
            if kind is _Kind.ANSWERED:
                return ReaderAnswer(question, answer.text("answer"))
            found = ReaderAnswer(question, problem=problem, tells=kind is _Kind.FAILED)
            if kind is _Kind.NO_CHAT:
                return found
            if kind is _Kind.FAILED:
                self._count(True, problem=problem)
        return found

    def _count(self, watching: bool, *, named: str = "", problem: str = "") -> None:
        part = self._facts.watched if watching else self._facts.switching
        if not problem:
            self._reached = True
            models = dict(part.named)
            if named in models or len(models) < MOST_MODELS:
                models[named[:100]] = models.get(named[:100], 0) + 1
            part = replace(part, answered=part.answered + 1, named=tuple(models.items()))
        elif self._reached:
            part = replace(part, failed=part.failed + 1, problem=problem)
        else:
            part = replace(part, unanswered=part.unanswered + 1, problem=problem)
        self._facts = replace(self._facts, watched=part) if watching else replace(self._facts, switching=part)


class _Kind(Enum):
    """What came of a question."""

    ANSWERED = auto()
    FAILED = auto()
    """A reader would have got nothing."""
    NOT_NOW = auto()
    """A full queue, or a pod of somebody else behind the same Service."""
    NO_CHAT = auto()
    """It takes no questions, or not from us."""


def _meaning(answer: HttpAnswer, url: str, model_id: str) -> tuple[_Kind, str]:
    if answer.status == OK and isinstance(answer.body, dict) and answer.body.get("degraded") is True:
        return _Kind.FAILED, f"POST {url}: the site answered without its model (degraded)"
    if answer.status == OK and isinstance(answer.body, dict) and isinstance(answer.body.get("answer"), str):
        model = answer.text("model")
        if model in ("", model_id):
            return _Kind.ANSWERED, ""
        return _Kind.NOT_NOW, f"POST {url} was answered by {model[:100]}"
    problem = answer.problem or f"POST {url} gave status {answer.status} and no answer"
    if answer.status == BUSY:
        return _Kind.NOT_NOW, problem
    if answer.status == OK or 400 <= answer.status < 500:
        return _Kind.NO_CHAT, problem
    return _Kind.FAILED, problem


def _tell(task: asyncio.Task[None]) -> None:
    """A fault in asking must not stay unseen; it is no fault of the model."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("asking a Service ended by a fault of the operator: %s", error, exc_info=error)
