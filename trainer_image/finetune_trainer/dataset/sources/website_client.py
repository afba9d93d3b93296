"""A polite reader of one web site: paced, retried, capped, and never led to an address that was not checked.

A host name is looked up once a request, its addresses are checked, and the connection goes to the one that was
checked: a name that changes its answer between check and use gains nothing. A proxy would look the name up again,
so none is used. Knows HTTP; must not know what is on a page.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from finetune_contract import VERSION
from finetune_trainer.dataset.sources.website_addresses import LookUp, Site, why_not_public
from finetune_trainer.errors import SourceRejected
from finetune_trainer.http_failures import MAX_WAIT_SECONDS, innermost_cause, seconds_to_wait

logger = logging.getLogger(__name__)

AGENT = "finetune-operator"
"""Our name in robots.txt."""
MAX_TRIES = 5
MAX_REDIRECTS = 5
MAX_PAGE_BYTES = 10 << 20
MAX_SECONDS = 120.0
"""For one answer: a server may not hold us by sending a byte now and then."""
TIMEOUT_SECONDS = (5.0, 30.0)
"""To connect, and between two bytes."""
_CHUNK_BYTES = 64 << 10


@dataclass(frozen=True)
class Answer:
    """What came of a request, after redirects. With a `problem` there is no body."""

    url: str
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    may_pass: bool = False
    """The problem is the server's and may be gone later."""

    @property
    def kind(self) -> str:
        """Content type without its parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


class AddressRefused(Exception):
    """A host leads to an address that is not public."""


class CheckedAddressAdapter(HTTPAdapter):
    """Looks the host up, refuses what is not public, and connects to that very address under the host's name."""

    def __init__(self, look_up: LookUp, allow_private: bool) -> None:
        super().__init__()
        self._look_up = look_up
        self._allow_private = allow_private
        self.turn = 0
        """Counts failures, so that a host with several addresses is tried at each."""

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        host: dict[str, Any]
        pool: dict[str, Any]
        host, pool = map(dict, super().build_connection_pool_key_attributes(request, verify, cert))
        site = Site.of(request.url or "")
        try:
            addresses = self._look_up(site.host, site.port)
        except (OSError, UnicodeError) as error:  # a name such as `a..b` cannot even be asked for
            raise requests.ConnectionError(f"{site.host} has no address") from error
        if not self._allow_private:
            for address in addresses:
                if kind := why_not_public(address):
                    raise AddressRefused(f"{site.host} has the {kind} address {address}")
        name = str(host["host"])
        host["host"] = addresses[self.turn % len(addresses)]
        if host["scheme"] == "https":
            pool |= {"server_hostname": name, "assert_hostname": name}
        return host, pool

    def add_headers(self, request: requests.PreparedRequest, **kwargs: Any) -> None:
        request.headers["Host"] = Site.of(request.url or "").root.partition("//")[2].rstrip("/")


class WebsiteClient:
    """Requests to one site, one after the other."""

    def __init__(
        self,
        place: str,
        requests_per_second: float,
        allow_private: bool,
        look_up: LookUp,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`place` is the source's path in the spec; it leads every error."""
        self._place = place
        self.interval_seconds = 1 / requests_per_second
        self._sleep, self._clock = sleep, clock
        self._last_request = float("-inf")
        self._adapter = CheckedAddressAdapter(look_up, allow_private)
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, no ~/.netrc
        self._session.headers["User-Agent"] = f"{AGENT}/{VERSION}"
        self._session.mount("http://", self._adapter)
        self._session.mount("https://", self._adapter)

    def trust(self, certificates: str) -> None:
        """Take these certificates of authorities (a file) in the place of the usual ones."""
        self._session.verify = certificates

    def get(
        self,
        site: Site,
        url: str,
        kinds: tuple[str, ...] = (),
        max_bytes: int = MAX_PAGE_BYTES,
        refuse: Callable[[str], str] = lambda url: "",
    ) -> Answer:
        """A page of `site`, whose content type begins with one of `kinds`; `refuse` says why not to follow a redirect.

        Raises:
            SourceRejected: the host's address is not public.
        """
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._ask(url, kinds, max_bytes)
            if answer.status not in {301, 302, 303, 307, 308}:
                return answer
            target = answer.headers.get("Location", "")
            url = site.page(target, base=url)
            if not url:
                shown = target.partition("?")[0][:200]
                return Answer(
                    answer.url, answer.status, problem=f"redirects to {shown}, which is another site"
                )
            if reason := refuse(url):
                return Answer(url, answer.status, problem=reason)
        return Answer(url, answer.status, problem=f"redirects more than {MAX_REDIRECTS} times")

    def _ask(self, url: str, kinds: tuple[str, ...], max_bytes: int) -> Answer:
        """One answer that is not a passing failure; waits and tries again until MAX_TRIES."""
        fact, status = "", 0
        for number in range(1, MAX_TRIES + 1):
            wait = min(MAX_WAIT_SECONDS, 0.5 * 2 ** (number - 1))
            self._keep_pace()
            try:
                with self._session.get(
                    url, timeout=TIMEOUT_SECONDS, allow_redirects=False, stream=True
                ) as response:
                    status = response.status_code
                    if status != 429 and status < 500:
                        return self._answer(response, url, kinds, max_bytes)
                    fact = f"answers {status}"
                    wait = seconds_to_wait(response.headers.get("Retry-After", ""), datetime.now(UTC)) or wait
            except AddressRefused as error:
                raise SourceRejected(
                    f"{self._place}.url: {error}; set allowPrivateAddresses if this intranet is meant"
                ) from error
            except requests.RequestException as error:
                self._adapter.turn += 1
                fact, status = f"gives no answer ({innermost_cause(error)})", 0
            if number < MAX_TRIES:
                logger.info("the site is asked again: url=%s fact=%r wait_seconds=%.1f", url, fact, wait)
                self._sleep(wait)
        return Answer(url, status, problem=f"{fact}, {MAX_TRIES} times", may_pass=True)

    def _answer(
        self, response: requests.Response, url: str, kinds: tuple[str, ...], max_bytes: int
    ) -> Answer:
        answer = Answer(url, response.status_code, headers=response.headers)
        if 300 <= response.status_code < 400:
            return answer
        if response.status_code != 200:
            return Answer(url, response.status_code, problem=f"answers {response.status_code}")
        if kinds and not answer.kind.startswith(kinds):
            return Answer(
                url, 200, headers=response.headers, problem=f"is {answer.kind or 'of no type'}, not HTML"
            )
        body = bytearray()
        latest = self._clock() + MAX_SECONDS
        for chunk in response.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > max_bytes:
                return Answer(url, 200, problem=f"is larger than {max_bytes >> 20} MiB")
            if self._clock() > latest:
                return Answer(url, 200, problem=f"takes longer than {MAX_SECONDS:.0f} s", may_pass=True)
        return Answer(url, 200, bytes(body), response.headers)

    def _keep_pace(self) -> None:
        if (wait := self._last_request + self.interval_seconds - self._clock()) > 0:
            self._sleep(wait)
        self._last_request = self._clock()
