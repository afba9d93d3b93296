"""A small site that speaks WordPress's REST API, for the tests of source and stage."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

PASSWORD = "abcd efgh ijkl"
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
    own_name: str = "http://mill.example"
    before: Callable[[Request], Response | None] = lambda request: None
    requests: list[str] = field(default_factory=list)

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

    def answer(self, request: Request) -> Response:
        self.requests.append(request.full_path.rstrip("?"))
        if (early := self.before(request)) is not None:
            return early
        route, query = self._route(request)
        if route is None:
            if request.path == "/" and self.root_in_header:
                root = "/wp-json/" if self.pretty else "/index.php?rest_route=/"
                link = f'<{self.own_name}{root}>; rel="https://api.w.org/"'
                return Response("<html></html>", headers={"Link": link}, mimetype="text/html")
            return Response("<html>not found</html>", 404, mimetype="text/html")
        if route == "":
            return _json({"namespaces": ["oembed/1.0", "wp/v2"]})
        if route == "wp/v2/users/me":
            return _json({"id": 1}) if self._signed_in(request) else _error(401, "rest_not_logged_in")
        if route == "wp/v2/types":
            return _json({"post": {"rest_base": "posts"}, "page": {"rest_base": "pages"}})
        rows = {
            "wp/v2/posts": [row for row in self.posts if row["type"] == "post"],
            "wp/v2/pages": [row for row in self.posts if row["type"] == "page"],
            "wp/v2/categories": self.categories,
            "wp/v2/tags": self.tags,
            "wp/v2/users": self.users,
        }.get(route)
        return _error(404, "rest_no_route") if rows is None else self._page(rows, query)

    def _route(self, request: Request) -> tuple[str | None, dict[str, str]]:
        query = dict(parse_qsl(request.query_string.decode()))
        if "rest_route" in query and request.path in {"/", "/index.php"}:
            return query.pop("rest_route").strip("/"), query
        if self.pretty and request.path.startswith("/wp-json"):
            return request.path.removeprefix("/wp-json").strip("/"), query
        return None, query

    def _signed_in(self, request: Request) -> bool:
        expected = base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {expected}"

    def _page(self, rows: list[dict[str, object]], query: dict[str, str]) -> Response:
        size, number = int(query["per_page"]), int(query["page"])
        if size > PAGE_SIZE_LIMIT:
            return _error(400, "rest_invalid_param")
        pages = -(-len(rows) // size)
        if number > 1 and number > pages:
            return _error(400, "rest_post_invalid_page_number")
        shown = sorted(rows, key=lambda row: int(str(row["id"])))[(number - 1) * size : number * size]
        response = _json([row for row in shown if row["id"] not in self.hidden])
        response.headers["X-WP-Total"], response.headers["X-WP-TotalPages"] = str(len(rows)), str(pages)
        return response


def _json(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")


def _error(status: int, code: str) -> Response:
    return _json({"code": code, "message": "", "data": {"status": status}}, status)


@pytest.fixture
def wordpress(httpserver: HTTPServer) -> FakeWordPress:
    site = FakeWordPress(httpserver)
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
