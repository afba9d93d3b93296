"""HTTP in, HTTP out: the page, the API as events or as one JSON answer, and the two health addresses.

Must not know how answers are found or written.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, TypeVar, cast

from django.apps import apps
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from finetune_chat.answering.answering import Answering, Delta, Done, Event, Queued, Sources, Turn
from finetune_chat.answering.errors import ChatError, ModelUnavailable, QueueFull
from finetune_chat.answering.retrieve import Link
from finetune_chat.apps import FinetuneChatConfig

logger = logging.getLogger(__name__)

_Response = TypeVar("_Response", bound=HttpResponseBase)
MAX_BODY_BYTES = 64 * 1024
NEEDS_ASGI = (
    "The chat needs an ASGI server, and this site runs under WSGI: start it with uvicorn, or with gunicorn and"
    " uvicorn's worker. In tests, ask it with Django's AsyncClient."
)
"""Under WSGI each request has an event loop of its own, and queue, index and connections belong to one."""
Question = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class TurnRequest(BaseModel):
    """An earlier turn, as the client remembers it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Annotated[str, StringConstraints(max_length=4000)]
    answer: Annotated[str, StringConstraints(max_length=8000)]


class ChatRequest(BaseModel):
    """Body of POST /api/chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Question
    history: Annotated[list[TurnRequest], Field(max_length=50)] = []
    """Oldest first; only the last turns are used."""


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """The chat page."""
    settings = _app().chat_settings
    response = render(
        request, "finetune_chat/chat.html", {"site_name": settings.site_name, "examples": settings.examples}
    )
    response["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
    )
    return response


@csrf_exempt  # no cookie means anything here, so there is nothing that a foreign page could borrow
@require_POST
async def chat(request: HttpRequest) -> HttpResponseBase:
    """One question: a stream of events, or one JSON object for `Accept: application/json`."""
    if isinstance(request, WSGIRequest):
        logger.error("%s", NEEDS_ASGI)
        return _problem(500, "asgi_required", NEEDS_ASGI)
    try:
        asked = _parsed(request)
    except ValueError as error:
        return _problem(400, "invalid_request", str(error))
    answering = _app().answering
    history = [Turn(turn.question, turn.answer) for turn in asked.history]
    try:
        retrieved = await answering.retrieve(asked.question, history)
        if retrieved.fits:
            answering.queue.require_room()
        events = answering.answer(asked.question, history, retrieved)
        if _wants_json(request):
            return await _json_response(events, await _served_model(answering))
        model_id = await _served_model(answering)
        first = await anext(events)  # takes the slot or the place while the answer can still be a 429
    except ChatError as error:
        return _refused(error)
    return _event_response(first, events, model_id)


@require_GET
async def livez(request: HttpRequest) -> HttpResponse:
    """The process answers; nothing else is asked."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_GET
async def readyz(request: HttpRequest) -> JsonResponse:
    """200 with the model that is really served and has written a token, else 503 with the reason."""
    if isinstance(request, WSGIRequest):
        return JsonResponse({"model": None, "reason": NEEDS_ASGI}, status=503)
    app = _app()
    model_id, reason = await app.answering.readiness(app.chat_settings.model_id)
    if model_id is None:
        return JsonResponse({"model": None, "reason": reason}, status=503)
    return _never_stored(JsonResponse({"model": model_id}))


def _parsed(request: HttpRequest) -> ChatRequest:
    """The body, or a ValueError that says what is wrong with it."""
    try:
        content = request.body if _announced_bytes(request) <= MAX_BODY_BYTES else None
    except RequestDataTooBig:  # Django's own limit, in the site's settings
        content = None
    if content is None or len(content) > MAX_BODY_BYTES:
        raise ValueError(f"the body is longer than {MAX_BODY_BYTES} bytes")
    try:
        return ChatRequest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise ValueError(f"{place}: {first['msg']}") from error


def _announced_bytes(request: HttpRequest) -> int:
    """0 for a body that comes in chunks, whose length nobody knows before."""
    length = request.headers.get("Content-Length", "0")
    return int(length) if length.isdigit() else 0


def _wants_json(request: HttpRequest) -> bool:
    return request.headers.get("Accept", "").split(";")[0].strip().lower().startswith("application/json")


def _event_response(
    first: Event, events: AsyncGenerator[Event, None], model_id: str
) -> StreamingHttpResponse:
    response = StreamingHttpResponse(_event_stream(first, events), content_type="text/event-stream")
    response["X-Accel-Buffering"] = "no"
    response["X-Model-Id"] = model_id
    return _never_stored(response)


async def _event_stream(first: Event, events: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    """Server-sent events. Django cancels this when the reader goes away, which frees slot and model."""
    async with aclosing(events):
        try:
            yield server_sent(first)
            async for event in events:
                yield server_sent(event)
        except ChatError as error:
            yield _event("error", {"code": error.code, "message": _for_readers(error)})


async def _json_response(events: AsyncGenerator[Event, None], model_id: str) -> JsonResponse:
    words: list[str] = []
    links: tuple[Link, ...] = ()
    done = Done("", "stop", 0.0)
    async for event in events:
        match event:
            case Delta(text):
                words.append(text)
            case Sources(found, _):
                links = found
            case Done():
                done = event
            case Queued():
                pass
    response = JsonResponse(
        {
            "answer": "".join(words).strip(),
            "sources": [{"title": link.title, "url": link.url} for link in links],
            "model": done.model,
            "refused": done.refused,
            "degraded": done.degraded,
            "seconds": round(done.seconds, 3),
        }
    )
    response["X-Model-Id"] = model_id
    return _never_stored(response)


def server_sent(event: Event) -> str:
    """One event in the text form of the standard."""
    name: str
    data: dict[str, object]
    match event:
        case Queued(position):
            name, data = "queued", {"position": position}
        case Sources(links, cited):
            name = "sources"
            data = {"cited": cited, "sources": [{"title": link.title, "url": link.url} for link in links]}
        case Delta(text):
            name, data = "delta", {"text": text}
        case Done():
            name = "done"
            data = {
                "model": event.model,
                "finish_reason": event.finish_reason,
                "seconds": round(event.seconds, 3),
                "refused": event.refused,
                "degraded": event.degraded,
            }
    return _event(name, data)


def _event(name: str, data: dict[str, object]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _refused(error: ChatError) -> JsonResponse:
    """The answer to a request that cannot be answered now."""
    response = _problem(429 if isinstance(error, QueueFull) else 503, error.code, _for_readers(error))
    if isinstance(error, QueueFull):
        response["Retry-After"] = str(error.retry_after_seconds)
    return response


def _for_readers(error: ChatError) -> str:
    """Readers are told what to do; addresses of servers are for the log."""
    if isinstance(error, QueueFull):
        return str(error)
    logger.warning("no answer: %s", error)
    return "The search of this site does not answer at the moment. Please try again later."


async def _served_model(answering: Answering) -> str:
    try:
        return await answering.model.model_id()
    except ModelUnavailable:
        return ""


def _problem(status: int, code: str, message: str) -> JsonResponse:
    return _never_stored(JsonResponse({"error": {"code": code, "message": message}}, status=status))


def _never_stored(response: _Response) -> _Response:
    response["Cache-Control"] = "no-store"
    return response


def _app() -> FinetuneChatConfig:
    return cast(FinetuneChatConfig, apps.get_app_config("finetune_chat"))
