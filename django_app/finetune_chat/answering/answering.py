"""The way from a question to an answer, as a stream of events. Joins search, gate, queue, model and filter.

Must not know HTTP requests, pages or Django.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from finetune_chat.answering.documents_index import DocumentsFileIndex
from finetune_chat.answering.errors import ModelUnavailable
from finetune_chat.answering.filter import LinkFilter
from finetune_chat.answering.model_server import ModelServer
from finetune_chat.answering.queue import AnswerQueue
from finetune_chat.answering.retrieve import DocumentIndex, Link, Retrieved, retrieve
from finetune_chat.answering.weaviate_index import WeaviateIndex
from finetune_chat.settings import ChatSettings
from finetune_contract.artifacts import ChatMessage
from finetune_contract.prompt import REFUSAL, conversation, is_refusal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Turn:
    """A question that was answered before."""

    question: str
    answer: str


@dataclass(frozen=True)
class Queued:
    """Wait; so many readers come first, this one included."""

    position: int


@dataclass(frozen=True)
class Sources:
    """The pages. While `cited` is true, `[n]` in the answer is the n-th of them; else they are merely near."""

    links: tuple[Link, ...]
    cited: bool


@dataclass(frozen=True)
class Delta:
    """More words."""

    text: str


@dataclass(frozen=True)
class Done:
    """The end, and how it went."""

    model: str
    """MODEL_ID of who wrote it; empty when no model was asked."""
    finish_reason: str
    """stop, length, refused (nothing fits) or degraded (no model)."""
    seconds: float
    refused: bool = False
    degraded: bool = False


Event = Queued | Sources | Delta | Done


class Answering:
    """Everything that one process needs to answer."""

    def __init__(
        self,
        index: DocumentIndex,
        model: ModelServer,
        queue: AnswerQueue,
        min_score: float,
        max_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.queue = queue
        self._index = index
        self._min_score = min_score
        self._max_tokens = max_tokens
        self._clock = clock
        self._told_readiness = ""

    @classmethod
    def from_settings(cls, settings: ChatSettings) -> Answering:
        """Build it; nothing is connected yet."""
        index: DocumentIndex
        if settings.weaviate is not None:
            index = WeaviateIndex(settings.weaviate)
        elif settings.documents is not None:
            index = DocumentsFileIndex(settings.documents)
        else:
            raise ValueError("neither WEAVIATE nor DOCUMENTS is set")
        return cls(
            index=index,
            model=ModelServer(settings.model_server_url, settings.first_token_timeout_seconds),
            queue=AnswerQueue(settings.slots, settings.queue),
            min_score=settings.min_score,
            max_tokens=settings.max_tokens,
        )

    async def retrieve(self, question: str, history: Sequence[Turn]) -> Retrieved:
        """What the site knows.

        Raises:
            IndexUnavailable: the search does not answer.
        """
        previous = history[-1].question if history else None
        return await retrieve(self._index, question, previous, self._min_score)

    async def answer(
        self, question: str, history: Sequence[Turn], retrieved: Retrieved
    ) -> AsyncGenerator[Event, None]:
        """The events of one answer. Slot and model are freed at the end, also when the reader goes away.

        Args:
            question: what is asked.
            history: earlier turns, oldest first.
            retrieved: what `retrieve` found.

        Raises:
            QueueFull: when the first event is asked for; `queue.require_room` tells earlier.
        """
        started = self._clock()
        if not retrieved.fits:
            yield Sources(retrieved.nearest, cited=False)
            yield Delta(REFUSAL)
            yield self._done(Done("", "refused", self._clock() - started, refused=True), retrieved)
            return
        ticket = self.queue.enter()
        try:
            async with aclosing(ticket.positions()) as positions:
                async for position in positions:
                    yield Queued(position)
            async with aclosing(self._ask(question, history, retrieved, started)) as events:
                async for event in events:
                    yield event
        finally:
            ticket.give_back()

    async def _ask(
        self, question: str, history: Sequence[Turn], retrieved: Retrieved, started: float
    ) -> AsyncGenerator[Event, None]:
        links = LinkFilter(retrieved.passages)
        asked, model_id, words, reason = self._clock(), "", "", "stop"
        try:
            model_id = await self._required_model()
        except ModelUnavailable as error:
            logger.warning("answer without model: %s", error)
            yield Sources(retrieved.nearest, cited=False)
            yield self._done(Done("", "degraded", self._clock() - started, degraded=True), retrieved)
            return
        yield Sources(tuple(Link(_label(p.title, p.heading), p.url) for p in retrieved.passages), cited=True)
        try:
            async with aclosing(
                self.model.answer(prompt_messages(question, history, retrieved), self._max_tokens)
            ) as tokens:
                async for token in tokens:
                    reason = token.finish_reason or reason
                    if text := links.feed(token.text):
                        words += text
                        yield Delta(text)
            if text := links.finish():
                words += text
                yield Delta(text)
        except ModelUnavailable as error:
            logger.warning("answer broke off: %s", error)
            yield self._done(Done(model_id, "degraded", self._clock() - started, degraded=True), retrieved)
            return
        self.queue.learn_duration(self._clock() - asked)
        done = Done(model_id, reason, self._clock() - started, refused=is_refusal(words))
        yield self._done(done, retrieved, links.removed_addresses)

    def _done(self, done: Done, retrieved: Retrieved, removed_addresses: int = 0) -> Done:
        logger.info(
            "answered: finish=%s refused=%s score=%.2f removed_addresses=%d seconds=%.2f model=%s",
            done.finish_reason, done.refused, retrieved.score, removed_addresses, done.seconds, done.model or "none",
        )  # fmt: skip
        return done

    async def _required_model(self) -> str:
        """MODEL_ID of the model that will answer.

        Raises:
            ModelUnavailable: there is none.
        """
        model_id = await self.model.model_id()
        if not model_id:
            raise ModelUnavailable("no model was rolled out yet")
        return model_id

    async def readiness(self, expected_model_id: str) -> tuple[str | None, str]:
        """The served model and an empty text when readers can be sent here; else None and the reason."""
        try:
            served, reason = await self._readiness(expected_model_id), ""
        except ModelUnavailable as error:
            served, reason = None, str(error)
        told = f"not ready: {reason}" if served is None else f"ready: model={served or 'none'}"
        if told != self._told_readiness:
            self._told_readiness = told
            logger.info("%s", told)
        return served, reason

    async def _readiness(self, expected_model_id: str) -> str:
        served = await self.model.model_id()
        if expected_model_id and served != expected_model_id:
            raise ModelUnavailable(
                f"the model server serves {served or 'no model'}, expected {expected_model_id}"
            )
        if served:
            await self.model.require_warm(served)
        return served


def prompt_messages(question: str, history: Sequence[Turn], retrieved: Retrieved) -> list[ChatMessage]:
    """The last turns as they were, then the question with its sources in the form that was taught."""
    turns = [(turn.question, turn.answer) for turn in history]
    return conversation(turns, question, retrieved.passages)


def _label(title: str, heading: str) -> str:
    return f"{title}: {heading}" if heading and heading != title else title
