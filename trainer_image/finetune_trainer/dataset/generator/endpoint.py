"""Any OpenAI-compatible endpoint: asks, waits, tries again, and says what is wrong. The key never leaves this file.

Knows HTTP; must not know what is asked. Safe to use from several threads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import requests

from finetune_contract import VERSION
from finetune_contract.run_spec import GeneratorSpec
from finetune_contract.secret_text import NOT_SENDABLE, is_sendable, without_margins
from finetune_contract.stage_protocol import ENV_GENERATOR_API_KEY
from finetune_trainer.errors import SourceRejected, SourceUnavailable
from finetune_trainer.http_failures import MAX_WAIT_SECONDS, seconds_to_wait

logger = logging.getLogger(__name__)

PLACE = "spec.dataset.generator"
MAX_TRIES = 5
TIMEOUT_SECONDS = (5.0, 300.0)
"""To connect, and between two bytes: a long answer on a CPU takes minutes."""
QUOTED_CHARACTERS = 200


class BudgetSpent(Exception):
    """maxRequests were sent; the caller goes on with what there is."""


class ChatEndpoint:
    """One model at one address. Opens no connection before it is asked."""

    def __init__(
        self,
        spec: GeneratorSpec,
        environment: Mapping[str, str],
        key_required: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`key_required`: a Secret that the spec names must have reached the environment.

        Raises:
            SourceRejected: the key cannot be sent.
        """
        self._spec = spec
        self._key = without_margins(environment.get(ENV_GENERATOR_API_KEY, ""))
        if not is_sendable(self._key):
            raise SourceRejected(
                f"{PLACE}.apiKeySecretRef: the API key {self._key_place} {NOT_SENDABLE}; correct it"
            )
        self._key_required = key_required and spec.api_key_secret_ref is not None
        self._sleep = sleep
        self._takes_schema = True
        self._lock = threading.Lock()
        self._sent = 0

    @property
    def sent(self) -> int:
        """Questions sent to the model, repeats counted."""
        return self._sent

    def check(self) -> None:
        """Prove the address and the key with one request that costs nothing.

        Raises:
            SourceRejected: the key is missing or refused.
            SourceUnavailable: nobody answers.
        """
        if self._key_required and not self._key:
            raise SourceRejected(
                f"{PLACE}.apiKeySecretRef: the Secret's key is not in {ENV_GENERATOR_API_KEY}; correct name and key"
            )
        response = self._send("GET", "models", None)
        if response.status_code in (401, 403):
            raise self._key_refused(response.status_code)
        logger.info("generator found: url=%s status=%d", self._spec.url, response.status_code)

    def ask(self, instruction: str, message: str, schema: Mapping[str, object], max_tokens: int) -> str:
        """What the model says, held to a JSON schema where the endpoint can do that.

        Raises:
            BudgetSpent: maxRequests were sent.
            SourceRejected: wrong key, address or model.
            SourceUnavailable: no answer after MAX_TRIES.
        """
        body: dict[str, object] = {
            "model": self._spec.model,
            "messages": [
                {"role": "system", "content": instruction},
                {"role": "user", "content": message},
            ],
            "temperature": self._spec.temperature,
            "max_tokens": max_tokens,
        }
        if self._takes_schema:
            form = {"type": "json_schema", "json_schema": {"name": "pairs", "strict": True, "schema": schema}}
            response = self._send("POST", "chat/completions", body | {"response_format": form})
            if response.status_code not in (400, 404, 415, 422, 501):
                return self._content(response)
            plain = self._send("POST", "chat/completions", body)
            if plain.ok:
                logger.info("the generator takes no JSON schema and is asked without: url=%s", self._spec.url)
                self._takes_schema = False
            return self._content(plain)
        return self._content(self._send("POST", "chat/completions", body))

    def _send(self, method: str, path: str, body: object) -> requests.Response:
        """One answer that is not a passing failure; waits and tries again."""
        url = f"{self._spec.url.rstrip('/')}/{path}"
        fact = ""
        for number in range(1, MAX_TRIES + 1):
            wait = min(MAX_WAIT_SECONDS, 2.0 ** (number - 1))
            if method == "POST":
                self._spend()
            try:
                response = requests.request(
                    method,
                    url,
                    json=body,
                    auth=self._sign,
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
                raise SourceRejected(f"{PLACE}.url: {self._spec.url} is no address; correct it") from error
            except requests.RequestException as error:
                fact = f"no answer ({type(error).__name__})"
            else:
                if response.status_code != 429 and response.status_code < 500:
                    return response
                if response.status_code == 501:
                    return response
                fact = f"it answers {response.status_code}"
                wait = seconds_to_wait(response.headers.get("Retry-After", ""), datetime.now(UTC)) or wait
            if number < MAX_TRIES:
                logger.info("the generator is asked again: url=%s fact=%r wait_seconds=%.1f", url, fact, wait)
                self._sleep(wait)
        remedy = (
            "its limit is reached: try later, or lower maxRequests"
            if fact.endswith("429")
            else "check the address and that it is up; answers so far are kept"
        )
        raise SourceUnavailable(f"{PLACE}.url: {url}: {fact}, {MAX_TRIES} times; {remedy}")

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """The key, and nothing out of ~/.netrc."""
        request.headers["User-Agent"] = f"finetune-operator/{VERSION}"
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _spend(self) -> None:
        with self._lock:
            if self._sent >= self._spec.max_requests:
                raise BudgetSpent
            self._sent += 1

    def _content(self, response: requests.Response) -> str:
        """The text of the first choice; empty when the model said nothing."""
        status, url = response.status_code, self._spec.url
        if status in (401, 403):
            raise self._key_refused(status)
        answer = _json(response)
        if 200 <= status < 300 and isinstance(answer, dict):
            try:
                return str(answer["choices"][0]["message"]["content"] or "")
            except (KeyError, IndexError, TypeError) as error:
                raise SourceRejected(
                    f"{PLACE}.url: {url} answers with JSON that is no chat completion; "
                    "give the address of an OpenAI-compatible endpoint, such as http://vllm:8000/v1"
                ) from error
        if answer is None or 300 <= status < 400:
            raise SourceRejected(
                f"{PLACE}.url: {url} answers {status} and no JSON; "
                "give the address of an OpenAI-compatible endpoint, such as http://vllm:8000/v1"
            )
        raise SourceRejected(
            f"{PLACE}.model: {url} answers {status} for model {self._spec.model}: {self._quoted(answer)}; "
            "name a model that it serves"
        )

    def _quoted(self, answer: Any) -> str:
        """The endpoint's own words, short and without the key."""
        error = answer.get("error", answer) if isinstance(answer, dict) else answer
        text = str(error.get("message", error) if isinstance(error, dict) else error)
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:QUOTED_CHARACTERS]

    def _key_refused(self, status: int) -> SourceRejected:
        if not self._key:
            return SourceRejected(
                f"{PLACE}.apiKeySecretRef: {self._spec.url} asks for an API key ({status}); "
                f"set it, or on a laptop the variable {ENV_GENERATOR_API_KEY}"
            )
        return SourceRejected(
            f"{PLACE}.apiKeySecretRef: {self._spec.url} refuses the API key {self._key_place} ({status}); correct it"
        )

    @property
    def _key_place(self) -> str:
        secret = self._spec.api_key_secret_ref
        return f"of the Secret {secret.name}" if secret else f"in {ENV_GENERATOR_API_KEY}"


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
