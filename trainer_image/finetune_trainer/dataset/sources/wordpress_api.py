"""A small client for the WordPress REST API: finds its root, joins queries, retries, and reads whole collections.

Knows HTTP and WordPress's paging; must not know what a document is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import requests

from finetune_contract import VERSION
from finetune_trainer.errors import SourceRejected, SourceUnavailable

logger = logging.getLogger(__name__)

PAGE_SIZE = 100
"""WordPress refuses more."""
MAX_TRIES = 5
MAX_WAIT_SECONDS = 120.0
TIMEOUT_SECONDS = (5.0, 30.0)
"""To connect, and between two bytes."""

Json = Any
"""What json.loads gives; checked where it is read."""


@dataclass(frozen=True)
class ApiRoot:
    """Address of the REST API, in the pretty form `.../wp-json/` or the plain form `.../?rest_route=/`."""

    address: str

    def url(self, route: str, parameters: Mapping[str, str | int] | None = None) -> str:
        """Address of a route such as `wp/v2/posts`."""
        parts = urlsplit(self.address)
        query = dict(parse_qsl(parts.query))
        path = parts.path
        if "rest_route" in query:
            query["rest_route"] = "/" + route
        else:
            path = path.rstrip("/") + "/" + route
        query |= {name: str(value) for name, value in (parameters or {}).items()}
        return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query, safe="/,"), ""))


@dataclass(frozen=True)
class Page:
    """One page of a collection with WordPress's own counts."""

    rows: list[dict[str, Json]]
    total: int
    total_pages: int


class RouteRefused(Exception):
    """WordPress answered a route with a 4xx; the caller knows whether that is an error."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}".strip())
        self.status = status
        self.code = code


class WordPressApi:
    """Requests go to the origin that the spec gives, whatever name the site calls itself by."""

    def __init__(
        self,
        url: str,
        place: str,
        credentials: tuple[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`place` is the source's path in the spec; it leads every error."""
        self._url = url if url.endswith("/") else url + "/"
        self._place = place
        self._credentials = credentials
        self._sleep = sleep
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"finetune-operator/{VERSION}"
        self._root: ApiRoot | None = None

    @property
    def site_url(self) -> str:
        """Address in the spec, with a slash at its end."""
        return self._url

    @property
    def has_credentials(self) -> bool:
        """Whether requests are signed in."""
        return self._credentials is not None

    def root(self) -> ApiRoot:
        """Where the API is; found once.

        Raises:
            SourceRejected: nothing at this address is a WordPress with its REST API.
        """
        if self._root is None:
            self._root = self._find_root()
        return self._root

    def get(self, route: str, parameters: Mapping[str, str | int] | None = None) -> Json:
        """JSON of a route. Raises RouteRefused on a 4xx."""
        return self._get_json(self.root().url(route, parameters))[0]

    def get_page(self, route: str, parameters: Mapping[str, str | int]) -> Page:
        """One page of a collection."""
        url = self.root().url(route, parameters)
        rows, headers = self._get_json(url)
        try:
            total, total_pages = int(headers["X-WP-Total"]), int(headers["X-WP-TotalPages"])
        except (KeyError, ValueError) as error:
            raise SourceRejected(
                f"{self._place}: {url} came without X-WP-Total; a proxy or plugin removes the header: let it pass"
            ) from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SourceRejected(f"{self._place}: {url} is no list of objects; is a plugin changing the API?")
        return Page(rows, total, total_pages)

    def get_all(self, route: str, parameters: Mapping[str, str | int]) -> Iterator[dict[str, Json]]:
        """Every row, ordered by id; only X-WP-TotalPages ends it, because hidden rows make short pages."""
        number, total_pages = 1, 1
        while number <= total_pages:
            page = self.get_page(route, {**parameters, "per_page": PAGE_SIZE, "page": number})
            total_pages = page.total_pages
            yield from page.rows
            number += 1

    def _find_root(self) -> ApiRoot:
        found: list[str] = []
        moved = ""
        for address in self._candidates():
            response = self._send(address, authenticated=False)
            if 300 <= response.status_code < 400:
                target = urljoin(address, response.headers.get("Location", ""))
                if urlsplit(target).path == urlsplit(address).path:
                    moved = urlunsplit((*urlsplit(target)[:2], urlsplit(self._url).path, "", ""))
            found.append(f"{urlsplit(address).path or '/'}: {_describe(response)}")
            if _is_api_root(response):
                logger.info("WordPress API found: root=%s", address)
                return ApiRoot(address)
        remedy = (
            f"the site redirects to {moved}: write that address"
            if moved
            else "check the address, and that no plugin closes the REST API"
        )
        raise SourceRejected(
            f"{self._place}.url: {self._url} has no WordPress REST API ({'; '.join(found)}); {remedy}"
        )

    def _candidates(self) -> Iterator[str]:
        """Addresses to try, the usual one first; the home page is asked only when that one fails."""
        yield self._url + "wp-json/"
        home = self._send(self._url, authenticated=False)
        link = home.links.get("https://api.w.org/", {}).get("url", "")
        if link:
            own, given = urlsplit(urljoin(self._url, link)), urlsplit(self._url)
            yield urlunsplit((given.scheme, given.netloc, own.path, own.query, ""))
        yield self._url + "index.php/wp-json/"
        yield self._url + "?rest_route=/"

    def _get_json(self, url: str) -> tuple[Json, Mapping[str, str]]:
        response = self._send(url, authenticated=True)
        body = _json(response)
        if 200 <= response.status_code < 300 and body is not None:
            return body, response.headers
        if 400 <= response.status_code < 500 and body is not None:
            raise RouteRefused(
                response.status_code, str(body.get("code", "")) if isinstance(body, dict) else ""
            )
        raise SourceRejected(
            f"{self._place}: {url} is not JSON ({_describe(response)}); "
            "a login wall, a cache or a plugin answers in WordPress's place: let the REST API pass"
        )

    def _send(self, url: str, authenticated: bool) -> requests.Response:
        """One answer that is not a passing failure; waits and tries again until MAX_TRIES."""
        fact = ""
        for number in range(1, MAX_TRIES + 1):
            wait = min(MAX_WAIT_SECONDS, 0.5 * 2 ** (number - 1))
            try:
                response = self._session.get(
                    url,
                    auth=(self._credentials if authenticated else None) or _anonymous,
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                fact = f"no answer ({_cause(error)})"
            else:
                truncated = response.status_code == 200 and _is_broken_json(response)
                if response.status_code != 429 and response.status_code < 500 and not truncated:
                    return response
                fact = "the JSON is cut off" if truncated else f"it answers {response.status_code}"
                wait = _retry_after_seconds(response) or wait
            if number < MAX_TRIES:
                logger.info("WordPress is asked again: url=%s fact=%r wait_seconds=%.1f", url, fact, wait)
                self._sleep(wait)
        raise SourceUnavailable(
            f"{self._place}.url: {url}: {fact}, {MAX_TRIES} times; check the address and that the site is up"
        )


def _anonymous(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keeps requests from taking a password out of ~/.netrc."""
    return request


def _json(response: requests.Response) -> Json:
    try:
        return response.json()
    except ValueError:
        return None


def _is_broken_json(response: requests.Response) -> bool:
    return "json" in response.headers.get("Content-Type", "") and _json(response) is None


def _is_api_root(response: requests.Response) -> bool:
    body = _json(response) if response.status_code == 200 else None
    return isinstance(body, dict) and "wp/v2" in body.get("namespaces", [])


def _describe(response: requests.Response) -> str:
    kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
    return f"{response.status_code}, {kind}, {len(response.content)} bytes"


def _retry_after_seconds(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return min(MAX_WAIT_SECONDS, float(value)) if value.isdigit() else None


def _cause(error: requests.RequestException) -> str:
    """The innermost reason, without the object addresses that urllib3 prints."""
    reason: BaseException = error
    while (
        inner := getattr(reason, "reason", None) or next(iter(reason.args), None)
    ) is not None and isinstance(inner, BaseException):
        reason = inner
    return str(reason).rpartition(">: ")[2] or type(error).__name__
