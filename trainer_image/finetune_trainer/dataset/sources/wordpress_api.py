"""A small client for the WordPress REST API: reads routes and whole collections, in pages that a weak host can bear.

Knows WordPress's paging; must not know what a document is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from finetune_trainer.dataset.sources.wordpress_http import (
    Json,
    PassingFailure,
    RouteRefused,
    WordPressHttp,
    shortened,
)
from finetune_trainer.dataset.sources.wordpress_root import ApiRoot, find_root
from finetune_trainer.errors import SourceRejected

PAGE_SIZES = (100, 50, 20, 10)
"""WordPress refuses more. Each divides the first, so that smaller pages fill the same hundred rows."""
PAGE_SIZE = PAGE_SIZES[0]
MAX_IN_FLIGHT = 2
"""Requests at the same time; the site has readers, too."""

Parameters = Mapping[str, str | int]
Row = dict[str, Json]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Page:
    """Up to a hundred rows of a collection with WordPress's own count of the whole."""

    rows: list[Row]
    total: int
    pages: int
    """How many such pages there are."""


class WordPressApi:
    """Finds the API when it is first asked."""

    def __init__(self, http: WordPressHttp) -> None:
        self._http = http
        self._root: ApiRoot | None = None
        self._size_index = 0
        """Of PAGE_SIZES; a host that fails on big pages is not asked for them again."""

    @property
    def http(self) -> WordPressHttp:
        """The connections, with the credentials that they send."""
        return self._http

    def sign_in(self) -> ApiRoot:
        """Find the API and prove the credentials, in two requests where the home page names the API.

        Raises:
            SourceRejected: nothing at this address is a WordPress with its REST API, or it closes that API.
            RouteRefused: it does not take the credentials.
        """
        root, answer = find_root(self._http)
        if answer.code is None:
            self._root = root
            return root
        if self._http.sign_in.site is not None:
            raise RouteRefused(answer.status, answer.code)
        raise SourceRejected(
            f"{self._http.place}.url: {self._http.site_url} closes its REST API to visitors ({answer.status} "
            f"{answer.code}); sign in with credentialsSecretRef, or let the API be read"
        )

    def get(self, route: str, parameters: Parameters | None = None) -> Json:
        """JSON of a route. Raises RouteRefused on a 4xx."""
        return self._http.get_json(self._url(route, parameters)).body

    def pages(self, route: str, parameters: Parameters) -> Iterator[Page]:
        """A collection in the order that the parameters ask for; only X-WP-TotalPages ends it.

        Hidden rows make short pages, so that a short page says nothing.
        """
        done, pages = 0, 1
        while done < pages:
            for page in in_order(partial(self._page, route, parameters), range(done + 1, pages + 1)):
                done, pages_now = done + 1, page.pages
                yield page
            pages = pages_now

    def rows(self, route: str, parameters: Parameters) -> Iterator[Row]:
        """Every row of a collection."""
        for page in self.pages(route, parameters):
            yield from page.rows

    def rows_by_id(
        self, route: str, numbers: Sequence[int], parameters: Parameters
    ) -> Iterator[tuple[Sequence[int], list[Row]]]:
        """A hundred at a time: the numbers that were asked for, and the rows of those that WordPress shows."""
        batches = [numbers[start : start + PAGE_SIZE] for start in range(0, len(numbers), PAGE_SIZE)]
        answers = in_order(partial(self._batch, route, parameters), batches)
        yield from zip(batches, answers, strict=True)

    def _page(self, route: str, parameters: Parameters, number: int) -> Page:
        """Page `number` of a hundred rows, in as many requests as the size that the host can bear makes of it."""

        def read(size: int) -> Page:
            share = PAGE_SIZE // size
            rows: list[Row] = []
            first, last = (number - 1) * share + 1, number * share
            page = self._request(route, {**parameters, "page": first}, size)
            rows += page.rows
            for part in range(first + 1, last + 1):
                if part > page.pages:
                    break
                page = self._request(route, {**parameters, "page": part}, size)
                rows += page.rows
            return Page(rows, page.total, -(-page.pages // share))

        return self._with_fitting_size(read)

    def _batch(self, route: str, parameters: Parameters, numbers: Sequence[int]) -> list[Row]:
        def read(size: int) -> list[Row]:
            rows: list[Row] = []
            for start in range(0, len(numbers), size):
                wanted = ",".join(str(number) for number in numbers[start : start + size])
                rows += self._request(route, {**parameters, "include": wanted, "page": 1}, size).rows
            return rows

        return self._with_fitting_size(read)

    def _with_fitting_size(self, read: Callable[[int], Result]) -> Result:
        """Try again after passing failures: once as it was, then in smaller pages if these may be the reason."""
        patience = self._http.patience()
        heavy = 0
        while True:
            index = self._size_index
            try:
                return read(PAGE_SIZES[index])
            except _PageFailed as error:
                patience.wait(error.failure, error.url)
                heavy += error.failure.is_heavy
                if heavy > 1:
                    self._size_index = max(self._size_index, min(index + 1, len(PAGE_SIZES) - 1))

    def _request(self, route: str, parameters: Parameters, size: int) -> Page:
        url = self._url(route, {**parameters, "per_page": size})
        try:
            answer = self._http.require_json(self._http.get_once(url), url)
        except PassingFailure as failure:
            raise _PageFailed(failure, url) from failure
        place, rows = self._http.place, answer.body
        try:
            total, pages = int(answer.headers["X-WP-Total"]), int(answer.headers["X-WP-TotalPages"])
        except (KeyError, ValueError) as error:
            raise SourceRejected(
                f"{place}: {shortened(url)} came without X-WP-Total; a proxy or plugin removes the header: let it pass"
            ) from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "id" in row for row in rows):
            raise SourceRejected(
                f"{place}: {shortened(url)} is no list of objects with ids; is a plugin changing the API?"
            )
        return Page(rows, total, pages)

    def _url(self, route: str, parameters: Parameters | None) -> str:
        root = self._root or self.sign_in()
        return root.url(route, parameters)


class _PageFailed(Exception):
    def __init__(self, failure: PassingFailure, url: str) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.url = url


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of the items, MAX_IN_FLIGHT at work while the caller looks at the one before them.

    No more than these are in memory.
    """
    with ThreadPoolExecutor(MAX_IN_FLIGHT) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > MAX_IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def rendered(row: Row, field: str) -> str:
    """The HTML of a field; half a surrogate pair, which JSON can hold and UTF-8 cannot, is replaced."""
    value = row.get(field)
    text = str(value.get("rendered", "")) if isinstance(value, dict) else ""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
