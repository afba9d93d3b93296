"""A small site in a process of its own, which gives posts as WordPress's REST API does, for the benchmark beside it."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Row = dict[str, Any]


class _Site(ThreadingHTTPServer):
    """Answers are kept, so that the second reader of a page waits for nothing but the wire."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, posts: Path, answer_seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rows: list[Row] = [json.loads(line) for line in posts.open()]
        self.by_id = {row["id"]: row for row in self.rows}
        self.answer_seconds = answer_seconds
        self.requests: list[str] = []
        self.answers: dict[str, tuple[dict[str, str], bytes, float]] = {}
        self.lock = threading.Lock()

    def answer(self, path: str) -> tuple[dict[str, str], bytes, float]:
        with self.lock:
            self.requests.append(path)
            if path not in self.answers:
                self.answers[path] = self._make(path)
            return self.answers[path]

    def _make(self, path: str) -> tuple[dict[str, str], bytes, float]:
        parts = urlsplit(path)
        query = dict(parse_qsl(parts.query))
        route = parts.path.removeprefix("/wp-json").strip("/")
        names = {"categories": ["Blogs"], "tags": ["tools", "water", "wood"], "users": ["Ada"]}
        kind = route.removeprefix("wp/v2/")
        taxonomies = ["category", "post_tag"]
        body: Any
        if route == "":
            body = {"namespaces": ["wp/v2"], "authentication": {}}
        elif kind == "types":
            body = {"post": {"rest_base": "posts", "rest_namespace": "wp/v2", "taxonomies": taxonomies}}
        elif kind in names:
            body = [
                {"id": place, "name": name, "slug": name.lower(), "parent": 0}
                for place, name in enumerate(names[kind], 1)
            ]
        elif kind == "posts":
            rows = self.rows
            if "include" in query:
                rows = [self.by_id[int(one)] for one in query["include"].split(",") if int(one) in self.by_id]
            size, page = int(query.get("per_page", 10)), int(query.get("page", 1))
            fields = query["_fields"].split(",") if "_fields" in query else None
            shown = rows[(page - 1) * size : page * size]
            seconds = self.answer_seconds * len(shown) / 100
            if fields is not None:
                shown = [{name: row[name] for name in fields if name in row} for row in shown]
                seconds *= 1.0 if "content" in fields else 0.05
            return _counted(len(rows), size), json.dumps(shown).encode(), seconds
        else:
            body = {}
        total = len(body) if isinstance(body, list) else 1
        return _counted(total, 100), json.dumps(body).encode(), 0.0


def _counted(total: int, size: int) -> dict[str, str]:
    return {"X-WP-Total": str(total), "X-WP-TotalPages": str(-(-total // size))}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Site

    def do_GET(self) -> None:
        headers, body, seconds = self.server.answer(self.path)
        if seconds:
            time.sleep(seconds)
        self.send_response(200)
        for name, value in {**headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - http.server's name
        return None


def _serve(posts: Path, answer_seconds: float, pipe: Connection) -> None:
    site = _Site(posts, answer_seconds)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    pipe.send(f"http://127.0.0.1:{site.server_port}")
    while pipe.recv() == "requests":  # what was asked since the last time
        with site.lock:
            pipe.send(list(site.requests))
            site.requests.clear()


@contextmanager
def serve_site(posts: Path, answer_seconds: float) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Address of a running site, and a function that gives the paths asked for since its last call."""
    mine, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(posts, answer_seconds, its))
    process.start()

    def asked() -> list[str]:
        mine.send("requests")
        return list(mine.recv())

    try:
        yield str(mine.recv()), asked
    finally:
        mine.send("stop")
        process.join()
