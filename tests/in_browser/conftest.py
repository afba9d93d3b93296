"""The real page in a real browser: needs Debian's Chromium (`apt-get install -y --no-install-recommends chromium`)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

from finetune_contract.artifacts import Document

MODEL_ID = "sha256:" + "5eed" * 16
PAGES = [
    (
        "Ticket prices",
        "https://mill.example/tickets/",
        "## Winter ticket\n\nAdults pay £7.40 to get in during winter.",
    ),
    (
        "The ferry",
        "https://mill.example/ferry/",
        "## Timetable\n\nThe ferry leaves the quay every 25 minutes.",
    ),
]


@dataclass
class ScriptedModel:
    """An OpenAI-style server that says what it is told, one piece at a time."""

    pieces: list[str] = field(default_factory=list)
    hold_after: int = 1_000
    """Pieces that come before it waits to be let go."""
    let_go: threading.Event = field(default_factory=threading.Event)
    gone_readers: int = 0
    address: str = ""


@pytest.fixture
def scripted_model() -> Iterator[ScriptedModel]:
    script = ScriptedModel()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": MODEL_ID}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pieces = ["Hello"] if asked["max_tokens"] == 1 else script.pieces
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for number, piece in enumerate(pieces):
                    while number >= script.hold_after and not script.let_go.wait(0.05):
                        self._send(b": still here\n\n")
                    self._send(
                        b"data: %s\n\n" % json.dumps({"choices": [{"delta": {"content": piece}}]}).encode()
                    )
                self._send(b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
            except OSError:
                script.gone_readers += 1

        def _send(self, content: bytes) -> None:
            self.wfile.write(content)
            self.wfile.flush()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield script
    script.let_go.set()
    server.shutdown()
    thread.join()
    server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise AssertionError(f"the process behind {address} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError(f"{address} did not answer")


@dataclass(frozen=True)
class Sites:
    """Starts chat sites for a test."""

    folder: Path
    processes: list[subprocess.Popen[bytes]]

    def start(self, model_address: str) -> str:
        documents = self.folder / "documents.jsonl"
        documents.write_text("\n".join(_row(*page) for page in PAGES))
        port = free_port()
        environment = {
            **os.environ,
            "FINETUNE_DOCUMENTS_FILE": str(documents),
            "MODEL_SERVER_URL": model_address,
            "DJANGO_SETTINGS_MODULE": "demo_site.settings",
            "DJANGO_ALLOWED_HOSTS": "127.0.0.1",
            "CHAT_SITE_NAME": "Marrowby Tide Mill",
            "CHAT_EXAMPLES": "What does an adult pay in winter?\nHow often does the ferry leave?",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "demo_site", "--host", "127.0.0.1", "--port", str(port)], env=environment
        )
        self.processes.append(process)
        wait_for(f"http://127.0.0.1:{port}/livez", process)
        return f"http://127.0.0.1:{port}"


def _row(title: str, url: str, content: str) -> str:
    return Document(
        source="site",
        post_id=url,
        post_title=title,
        post_excerpt="",
        post_content=content,
        post_date="2025-01-01T00:00:00Z",
        post_author="A",
        post_categories=["Documentation"],
        post_tags=[],
        post_url=url,
    ).model_dump_json(by_alias=True)


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    started = Sites(tmp_path, [])
    yield started
    for process in started.processes:
        process.terminate()
        process.wait()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is missing: apt-get install -y --no-install-recommends chromium"
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield opened
        await opened.close()
