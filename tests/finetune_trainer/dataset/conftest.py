"""A small site that speaks WordPress's REST API, for the tests of source and stage."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from finetune_contract.run_spec import SourceSpec, WordPressSource
from finetune_trainer.dataset.sources.harvest_memory import HarvestMemory
from finetune_trainer.dataset.sources.raw_document import Harvest
from finetune_trainer.dataset.sources.wordpress import WordPressReader, open_wordpress
from finetune_trainer.dataset.sources.wordpress_http import Timing

PASSWORD = "abcd efgh ijkl"
TOKEN = "tok-123"
PAGE_SIZE_LIMIT = 100


@dataclass
class FakeWordPress:
    """Answers as WordPress does: hidden rows are counted and not shown, wrong passwords read as anonymous."""

    server: HTTPServer
    posts: list[dict[str, object]] = field(default_factory=list)
    categories: list[dict[str, object]] = field(default_factory=list)
    tags: list[dict[str, object]] = field(default_factory=list)
    users: list[dict[str, object]] = field(default_factory=list)
    hidden: set[int] = field(default_factory=set)
    pretty: bool = True
    root_in_header: bool = True
    taxonomies: dict[str, dict[str, object]] = field(default_factory=dict)
    types: dict[str, dict[str, object]] = field(default_factory=dict)
    more_rows: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    """Rows of other routes."""
    own_name: str = "http://mill.example"
    before: Callable[[Request], Response | None] = lambda request: None
    requests: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    """What the readers of this site waited for, in seconds."""

    @property
    def url(self) -> str:
        return self.server.url_for("").rstrip("/")

    def add(self, number: int, title: str, html: str, **changes: object) -> None:
        self.posts.append(
            {
                "id": number,
                "type": "post",
                "status": "publish",
                "guid": {"rendered": f"{self.own_name}/?p={number}"},
                "modified_gmt": "2025-06-01T08:00:00",
                "date_gmt": f"2025-01-{number % 28 + 1:02d}T08:00:00",
                "link": f"{self.own_name}/{number}/",
                "title": {"rendered": title},
                "excerpt": {"rendered": ""},
                "content": {"rendered": html, "protected": False},
                "author": 1,
                "categories": [],
                "tags": [],
                **changes,
            }
        )

    def reader(
        self,
        memory: HarvestMemory | None = None,
        environment: Mapping[str, str] | None = None,
        now: datetime = datetime(2026, 1, 1, tzinfo=UTC),
        **settings: Any,
    ) -> WordPressReader:
        """A reader of this site that waits for nothing."""
        reader = open_wordpress(
            SourceSpec(name="site", wordpress=WordPressSource(**{"url": self.url, **settings})),
            environment or {},
            True,
            Timing(self.waits.append, lambda: 0.0),
            lambda: now,
        )
        if memory is not None:
            reader.remember_in(memory)
        return reader

    def read(self, memory: HarvestMemory | None = None, **settings: Any) -> Harvest:
        """Everything, by a new reader; `requests` then holds what it asked for."""
        self.requests.clear()
        return self.reader(memory, **settings).read(lambda *_, **__: None)

    def post(self, number: int) -> dict[str, Any]:
        """A post that may be changed."""
        return next(row for row in self.posts if row["id"] == number)

    def edit(self, number: int, html: str) -> None:
        """As an editor does: a new text and a new date of modification."""
        self.post(number).update(
            content={"rendered": html, "protected": False}, modified_gmt="2025-07-01T08:00:00"
        )

    def remove(self, number: int) -> None:
        """Deleted or in the trash: the site does not list it any more."""
        self.posts.remove(self.post(number))

    def answer(self, request: Request) -> Response:
        self.requests.append(request.full_path.rstrip("?"))
        if (early := self.before(request)) is not None:
            return early
        route, query = self._route(request)
        if route is None:
            if request.path == "/":
                root = "/wp-json/" if self.pretty else "/index.php?rest_route=/"
                link = f'<{self.own_name}{root}>; rel="https://api.w.org/"'
                headers = {"Link": link} if self.root_in_header else {}
                return Response("<html></html>", headers=headers, mimetype="text/html")
            return Response("<html>not found</html>", 404, mimetype="text/html")
        if route == "":
            return _json({"namespaces": ["oembed/1.0", "wp/v2"]})
        if route == "wp/v2/users/me":
            return _json({"id": 1}) if self._signed_in(request) else _error(401, "rest_not_logged_in")
        if route == "wp/v2/types":
            return _json(self.types)
        if route == "wp/v2/taxonomies":
            return _json(self.taxonomies)
        rows = {
            **{
                f"wp/v2/{row['rest_base']}": [post for post in self.posts if post["type"] == name]
                for name, row in self.types.items()
            },
            "wp/v2/categories": self.categories,
            "wp/v2/tags": self.tags,
            "wp/v2/users": self.users,
            **self.more_rows,
        }.get(route)
        return _error(404, "rest_no_route") if rows is None else self._page(rows, query)

    def bodies_fetched(self) -> int:
        """How many texts the requests so far asked for by number."""
        return sum(len(ids.split(",")) for ids in self.body_requests())

    def body_requests(self) -> list[str]:
        """The numbers in each request for posts by number."""
        queries = [dict(parse_qsl(request.partition("?")[2])) for request in self.requests]
        return [
            query["include"]
            for request, query in zip(self.requests, queries, strict=True)
            if "include" in query and "/users" not in request
        ]

    def _route(self, request: Request) -> tuple[str | None, dict[str, str]]:
        query = dict(parse_qsl(request.query_string.decode()))
        if "rest_route" in query and request.path in {"/", "/index.php"}:
            return query.pop("rest_route").strip("/"), query
        path = request.path.removeprefix("/index.php")
        if (self.pretty or path != request.path) and path.startswith("/wp-json"):
            return path.removeprefix("/wp-json").strip("/"), query
        return None, query

    def _signed_in(self, request: Request) -> bool:
        expected = base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
        return request.headers.get("Authorization") in {f"Basic {expected}", f"Bearer {TOKEN}"}

    def _page(self, rows: list[dict[str, object]], query: dict[str, str]) -> Response:
        size, number = int(query["per_page"]), int(query["page"])
        if size > PAGE_SIZE_LIMIT:
            return _error(400, "rest_invalid_param")
        statuses = query.get("status", "publish").split(",")
        rows = [row for row in rows if row.get("status", "publish") in statuses]
        if "include" in query:
            wanted = {int(number) for number in query["include"].split(",")}
            rows = [row for row in rows if row["id"] in wanted]
        pages = -(-len(rows) // size)
        if number > 1 and number > pages:
            return _error(400, "rest_post_invalid_page_number")
        shown = sorted(rows, key=lambda row: int(str(row["id"])))[(number - 1) * size : number * size]
        fields = [*query["_fields"].split(","), *(["_embedded"] if "_embed" in query else [])]
        response = _json(
            [
                {name: row[name] for name in fields if name in row}
                for row in shown
                if row["id"] not in self.hidden
            ]
        )
        response.headers["X-WP-Total"], response.headers["X-WP-TotalPages"] = str(len(rows)), str(pages)
        return response


def _json(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")


def _error(status: int, code: str) -> Response:
    return _json({"code": code, "message": "", "data": {"status": status}}, status)


@pytest.fixture
def wordpress(httpserver: HTTPServer) -> FakeWordPress:
    site = FakeWordPress(httpserver)
    site.types = {
        "post": {"rest_base": "posts", "taxonomies": ["category", "post_tag"]},
        "page": {"rest_base": "pages", "taxonomies": []},
    }
    site.users = [{"id": 1, "name": "Ada &amp; Co"}]
    site.categories = [
        {"id": 1, "name": "Blogs", "slug": "blogs", "parent": 0},
        {"id": 2, "name": "Milling &amp; more", "slug": "milling", "parent": 1},
        {"id": 3, "name": "Archive", "slug": "archive", "parent": 0},
    ]
    site.tags = [{"id": 9, "name": "rye", "slug": "rye"}, {"id": 8, "name": "oats", "slug": "oats"}]
    httpserver.expect_request(re.compile(".*")).respond_with_handler(site.answer)
    return site


@pytest.fixture
def unused_port() -> int:
    """A port where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
