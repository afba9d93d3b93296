"""Single requests to a WordPress: signs them, tells a passing failure from a refusal, waits and tries again.

Knows HTTP; must not know routes, pages or documents.
"""

from __future__ import annotations

import codecs
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from finetune_contract import VERSION
from finetune_trainer.dataset.sources.wordpress_sign_in import SignIn
from finetune_trainer.errors import SourceRejected, SourceUnavailable
from finetune_trainer.http_failures import innermost_cause, seconds_to_wait

logger = logging.getLogger(__name__)

MAX_TRIES = 5
JITTER = 0.25
"""Waits are longer by up to this share, so that jobs that failed together do not come back together."""
TIMEOUT_SECONDS = (5.0, 30.0)
"""To connect, and between two bytes."""
_ASKS_TO_WAIT = {408, 425, 429}
USER_AGENT = f"finetune-operator/{VERSION}"

Json = Any
"""What json.loads gives; checked where it is read."""


class PassingFailure(Exception):
    """A later try may succeed."""

    def __init__(self, fact: str, wait_seconds: float | None = None, is_heavy: bool = False) -> None:
        """`wait_seconds` is what the server asks for; `is_heavy` says that it may have choked on the page's size."""
        super().__init__(fact)
        self.wait_seconds = wait_seconds
        self.is_heavy = is_heavy


class RouteRefused(Exception):
    """WordPress answered a route with a 4xx; the caller knows whether that is an error."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}".strip())
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Timing:
    """How waiting is done; tests wait without sleeping."""

    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    """From 0 to 1."""


class Answer:
    """A response with its JSON read once; `body` is None when it is not JSON."""

    def __init__(self, response: requests.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.content_type = response.headers.get("Content-Type", "no content type").partition(";")[0]
        self.link_to_api = str(response.links.get("https://api.w.org/", {}).get("url", ""))
        self._first_byte = response.content.lstrip()[:1]
        self._size = len(response.content)
        self.body: Json = None
        with suppress(ValueError):
            self.body = _json(response)

    @property
    def code(self) -> str | None:
        """WordPress's word for an error; None when this is not an error of WordPress."""
        return str(self.body["code"]) if isinstance(self.body, dict) and "code" in self.body else None

    @property
    def is_cut_off(self) -> bool:
        """Begins as JSON and does not end as such; a PHP warning before the JSON is another matter."""
        begins = self._first_byte in {b"[", b"{", b""}
        return self.status == 200 and "json" in self.content_type and begins and self.body is None

    def __str__(self) -> str:
        return f"{self.status}, {self.content_type}, {self._size} bytes"


class Patience:
    """Counts the failures of one thing that is asked for."""

    def __init__(self, place: str, timing: Timing) -> None:
        self._place = place
        self._timing = timing
        self.failures = 0

    def wait(self, failure: PassingFailure, url: str) -> None:
        """Wait as long as the server asks, else longer each time.

        Raises:
            SourceUnavailable: it has failed MAX_TRIES times.
        """
        self.failures += 1
        url = shortened(url)
        if self.failures >= MAX_TRIES:
            raise SourceUnavailable(
                f"{self._place}.url: {url}: {failure}, {MAX_TRIES} times; check the address and that the site is up"
            ) from failure
        seconds = failure.wait_seconds
        if seconds is None:
            seconds = 0.5 * 2 ** (self.failures - 1) * (1 + JITTER * self._timing.jitter())
        logger.info("WordPress is asked again: url=%s fact=%r wait_seconds=%.1f", url, str(failure), seconds)
        self._timing.sleep(seconds)


class WordPressHttp:
    """One site's connections; may be used by several threads."""

    def __init__(self, site_url: str, place: str, sign_in: SignIn, timing: Timing) -> None:
        """`place` is the source's path in the spec; it leads every error."""
        self.site_url = site_url
        self.place = place
        self.sign_in = sign_in
        self._timing = timing
        self._session = requests.Session()
        self._session.headers["User-Agent"] = USER_AGENT

    def patience(self) -> Patience:
        """For one thing that is asked for."""
        return Patience(self.place, self._timing)

    def get(self, url: str, to_wordpress: bool = True) -> Answer:
        """An answer of any kind, after passing failures. WordPress's credentials go along only `to_wordpress`."""
        patience = self.patience()
        while True:
            try:
                return self.get_once(url, to_wordpress)
            except PassingFailure as failure:
                patience.wait(failure, url)

    def get_once(self, url: str, to_wordpress: bool = True) -> Answer:
        """One try. Raises PassingFailure, or SourceRejected when a proxy keeps us out."""
        sign_in = self.sign_in
        try:
            response = self._session.get(
                url,
                auth=sign_in.authorize if to_wordpress else sign_in.authorize_for_proxy,
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise SourceRejected(
                    f"{self.place}.url: the certificate of {self.site_url} is not trusted "
                    f"({innermost_cause(error)}); renew it, or name a file with your own authority "
                    "in the environment variable REQUESTS_CA_BUNDLE"
                ) from None
            raise PassingFailure(f"no answer ({innermost_cause(error)})", is_heavy=True) from None
        answer = Answer(response)
        if answer.status in _ASKS_TO_WAIT or answer.status >= 500:
            raise PassingFailure(
                f"it answers {answer.status}",
                retry_after_seconds(answer.headers),
                is_heavy=answer.status not in _ASKS_TO_WAIT,
            )
        if answer.is_cut_off:
            raise PassingFailure("the JSON is cut off", is_heavy=True)
        self._check_proxy(answer)
        return answer

    def get_json(self, url: str) -> Answer:
        """An answer of JSON. Raises RouteRefused on a 4xx."""
        return self.require_json(self.get(url), url)

    def require_json(self, answer: Answer, url: str) -> Answer:
        """The same for an answer that has come."""
        if 400 <= answer.status < 500:
            raise RouteRefused(answer.status, answer.code or f"({answer.content_type})")
        if not 200 <= answer.status < 300 or answer.body is None:
            raise SourceRejected(
                f"{self.place}: {shortened(url)} is not JSON ({answer}); "
                "a login wall, a cache or a plugin answers in WordPress's place: let the REST API pass"
            )
        return answer

    def _check_proxy(self, answer: Answer) -> None:
        """WordPress says 401 with a code in JSON; a proxy asks for a password in a header."""
        challenged = "WWW-Authenticate" in answer.headers or "Proxy-Authenticate" in answer.headers
        if answer.status not in {401, 407} or not challenged or answer.code is not None:
            return
        proxy = self.sign_in.proxy
        if proxy is not None:
            raise SourceRejected(
                f"{self.place}.{proxy.spec_field}: a proxy in front of {self.site_url} refuses user name and password "
                f"of the Secret {proxy.secret} ({answer.status}; sent in the header {proxy.header}); correct the "
                "Secret, or name the header that the proxy reads in frontProxy.header"
            )
        remedy = "name a Secret with it in frontProxy.credentialsSecretRef"
        if self.sign_in.site is not None:
            remedy += ", and in frontProxy.header one that the proxy reads besides Authorization"
        raise SourceRejected(
            f"{self.place}.frontProxy: a proxy in front of {self.site_url} wants a password of its own "
            f"({answer.status}); {remedy}"
        )


def _json(response: requests.Response) -> Json:
    """Also behind a byte order mark, which a theme's file can put before every answer."""
    if response.content.startswith(codecs.BOM_UTF8):
        return json.loads(response.content.removeprefix(codecs.BOM_UTF8))
    return response.json()


def shortened(url: str) -> str:
    """For people: a hundred numbers in an address tell them nothing."""
    return url if len(url) <= 200 else url[:200] + "..."


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds, or a date, which is taken against the server's own clock."""
    server_clock: datetime | None = None
    with suppress(ValueError, TypeError, OverflowError):
        server_clock = parsedate_to_datetime(headers.get("Date", ""))
    return seconds_to_wait(headers.get("Retry-After", ""), server_clock)
