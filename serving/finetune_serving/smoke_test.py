"""`finetune-smoke-test`: ask the model server of this pod what the model has answered right in its evaluation.

Runs in a Job beside the target's own model-fetch and model server, before the target is changed. Reads MODEL_ID,
MODEL_SERVER_PORT and the variables of finetune_contract.stage_protocol. The result is its exit code and its last words.
"""

from __future__ import annotations

import http.client
import json
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from finetune_contract.answer_text import is_right
from finetune_contract.artifact_layout import GOLDEN_FILE
from finetune_contract.artifacts import GoldenQuestion
from finetune_contract.stage_protocol import (
    ENV_GOLDEN_QUESTIONS,
    ENV_SMOKE_MIN_RIGHT,
    ENV_SMOKE_QUESTIONS,
    ENV_SMOKE_SECONDS,
    FetchExitCode,
    SmokeExitCode,
)
from finetune_serving.errors import FetchError, ForbiddenFile, NotFound
from finetune_serving.last_words import leave_last_words
from finetune_serving.server import DEFAULT_PORT, HOST
from finetune_serving.stores import ModelStore, open_store

logger = logging.getLogger("finetune_serving.smoke_test")

MAX_ANSWER_TOKENS = 250
LOOK_AGAIN_SECONDS = 1.0
DEFAULT_SECONDS = 300.0
DEFAULT_MIN_RIGHT = 0.5
_SHOWN_CHARACTERS = 300


class NotServed(Exception):
    """The model server does not serve the model, or does not answer in time."""


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice]


@dataclass(frozen=True)
class Answered:
    """A golden question with what the server said now."""

    golden: GoldenQuestion
    answer: str

    @property
    def right(self) -> bool:
        """As the evaluation judged it."""
        return is_right(self.answer, self.golden.must_contain)


class AskedServer:
    """An OpenAI-style server on this pod's own interface, asked one question at a time until a moment in time."""

    def __init__(
        self,
        port: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._port = port
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self._end = clock() + seconds

    def await_model(self, model_id: str) -> None:
        """Wait until the server names this model.

        Raises:
            NotServed: it names another one, or none in time.
        """
        problem = ""
        while (left := self._end - self._clock()) > 0:
            try:
                served = _Models.model_validate_json(self._ask("GET", "/v1/models", None, min(left, 5.0)))
                names = [model.id for model in served.data]
                if model_id in names:
                    return
                if names:
                    raise NotServed(f"the model server serves {names[0]}, not {model_id}")
                problem = "it names no model"
            except (OSError, http.client.HTTPException, ValidationError) as error:
                problem = _in_words(error)
            self._sleep(LOOK_AGAIN_SECONDS)
        raise NotServed(
            f"the model server at {HOST}:{self._port} did not serve {model_id} within {self._seconds:.0f} s "
            f"({problem}); give it more time (rollout.timeoutSeconds), or look at its log"
        )

    def answer(self, golden: GoldenQuestion) -> str:
        """What the model says, without chance.

        Raises:
            NotServed: no answer, or not in time.
        """
        wish = {
            "messages": [message.to_wire() for message in golden.prompt],
            "temperature": 0,
            "max_tokens": MAX_ANSWER_TOKENS,
        }
        left = self._end - self._clock()
        try:
            if left <= 0:
                raise TimeoutError("no time is left")
            body = self._ask("POST", "/v1/chat/completions", json.dumps(wish).encode(), left)
            choices = _Completion.model_validate_json(body).choices
        except (OSError, http.client.HTTPException, ValidationError) as error:
            raise NotServed(
                f"no answer to “{golden.question}” ({_in_words(error)}, {self._seconds:.0f} s in all); give it more "
                "time (rollout.timeoutSeconds), or look at the model server's log"
            ) from error
        return (choices[0].message.content or "") if choices else ""

    def _ask(self, method: str, path: str, body: bytes | None, seconds: float) -> bytes:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=seconds)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"status {answer.status}")
        return content


def read_golden(store: ModelStore | None, most: int) -> list[GoldenQuestion]:
    """The first questions of an evaluation; none where it kept none.

    Raises:
        FetchError: they are there and cannot be read.
    """
    if store is None:
        return []
    try:
        content = store.read_small(GOLDEN_FILE)
    except NotFound as error:
        logger.info("no golden questions: %s", error)
        return []
    try:
        return [GoldenQuestion.model_validate_json(line) for line in content.splitlines()[:most]]
    except ValidationError as error:
        raise ForbiddenFile(
            f"{store.describe(GOLDEN_FILE)}: not questions that this version reads ({error.errors()[0]['msg']}); use "
            "the serving image of the release that evaluated the model"
        ) from error


def ask_all(server: AskedServer, questions: Sequence[GoldenQuestion]) -> Iterator[Answered]:
    """One after the other, as a reader would find the server after a rollout."""
    for number, golden in enumerate(questions, start=1):
        started = time.monotonic()
        answered = Answered(golden, server.answer(golden))
        logger.info(
            "asked: question=%d/%d right=%s seconds=%.1f id=%s",
            number, len(questions), answered.right, time.monotonic() - started, golden.id,
        )  # fmt: skip
        yield answered


def verdict(answered: Sequence[Answered], min_right: float) -> tuple[SmokeExitCode, str]:
    """Whether enough is right, in words that a person can act on."""
    if not answered:
        return SmokeExitCode.PASSED, "the model is loaded; its evaluation kept no question to ask"
    wrong = [one for one in answered if not one.right]
    right, needed = len(answered) - len(wrong), math.ceil(min_right * len(answered))
    words = f"{right} of {len(answered)} golden questions answered right"
    if right >= needed:
        return SmokeExitCode.PASSED, words
    first = wrong[0]
    return SmokeExitCode.TOO_MANY_WRONG, (
        f"{words}, {needed} are needed (rollout.smokeTest.minRight: {min_right:g}). The first wrong one: "
        f"“{_shown(first.golden.question)}” gave “{_shown(first.answer)}”, in the evaluation "
        f"“{_shown(first.golden.answer)}”. Compare packaging.gguf and the target's model server with the evaluation"
    )


def main() -> None:
    """Console script. Exit codes: SmokeExitCode, and FetchExitCode for the questions."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    # The first process of a container ignores SIGTERM unless it says otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    code, words = smoke_test(dict(os.environ))
    logger.info("%s: %s", code.name, words)
    leave_last_words(words)
    sys.exit(code)


def smoke_test(environment: dict[str, str]) -> tuple[SmokeExitCode | FetchExitCode, str]:
    """Ask, and judge."""
    server = AskedServer(
        int(environment.get("MODEL_SERVER_PORT") or DEFAULT_PORT),
        float(environment.get(ENV_SMOKE_SECONDS) or DEFAULT_SECONDS),
    )
    folder = environment.get(ENV_GOLDEN_QUESTIONS)
    try:
        questions = read_golden(
            open_store(folder) if folder else None, int(environment.get(ENV_SMOKE_QUESTIONS) or 0)
        )
        server.await_model(environment.get("MODEL_ID", "").strip())
        answered = list(ask_all(server, questions))
    except FetchError as error:
        return error.exit_code, str(error)
    except NotServed as error:
        return SmokeExitCode.NOT_SERVED, str(error)
    return verdict(answered, float(environment.get(ENV_SMOKE_MIN_RIGHT) or DEFAULT_MIN_RIGHT))


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200].rstrip(": ")


def _shown(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _SHOWN_CHARACTERS else words[: _SHOWN_CHARACTERS - 1] + "…"
