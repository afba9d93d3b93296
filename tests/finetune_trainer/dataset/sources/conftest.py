"""A small web site, for the tests of the sources."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response


@dataclass
class FakeWebsite:
    """Pages by path and query; everything else is 404."""

    server: HTTPServer
    pages: dict[str, Response] = field(default_factory=dict)
    before: Callable[[Request], Response | None] = lambda request: None
    requests: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url_for("/")

    @property
    def port(self) -> int:
        return self.server.port

    def page(self, path: str, body: str, head: str = "", **headers: str) -> None:
        html = f"<html><head>{head}</head><body>{body}</body></html>"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.add(path, html, "text/html; charset=utf-8", headers=named)

    def text(self, path: str, body: str | bytes) -> None:
        self.add(path, body, "text/plain")

    def add(
        self,
        path: str,
        body: str | bytes = "",
        kind: str = "text/html",
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.pages[path] = Response(body, status, headers, content_type=kind)

    def moved(self, path: str, to: str) -> None:
        self.add(path, status=301, headers={"Location": to})

    def answer(self, request: Request) -> Response:
        path = request.full_path.removesuffix("?")
        self.requests.append(path)
        self.hosts.append(request.headers["Host"])
        if (early := self.before(request)) is not None:
            return early
        return self.pages.get(path) or Response("not found", 404)


@pytest.fixture
def website(httpserver: HTTPServer) -> FakeWebsite:
    site = FakeWebsite(httpserver)
    httpserver.expect_request(re.compile(".*")).respond_with_handler(site.answer)
    return site
