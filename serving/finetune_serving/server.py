"""`finetune-model-server`: llama.cpp's server with the pinned model, on this pod's own network interface only.

Reads MODEL_ID, MODEL_CACHE, MODEL_SERVER_PORT, MODEL_SERVER_THREADS, MODEL_SERVER_SLOTS, MODEL_SERVER_SLOT_TOKENS.
The name under which `/v1/models` shows the model is MODEL_ID, so that whoever asks learns what is really served.
Without a MODEL_ID the port answers with an empty list: no model was rolled out yet.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from finetune_serving.cgroup import cpu_limit, memory_limit_bytes, processors, usable_threads
from finetune_serving.last_words import leave_last_words
from finetune_serving.memory import estimate, read_shape
from finetune_serving.model_cache import ModelCache, digest_of

logger = logging.getLogger("finetune_serving.server")

HOST = "127.0.0.1"
DEFAULT_PORT = 8081
PROMPT_CACHE_MIB = 64
EXIT_REFUSED = 2


class ServerRefused(Exception):
    """The model cannot be served here; trying again with the same files and limits does not help."""


@dataclass(frozen=True)
class ServerSettings:
    """How the model is served."""

    model_id: str
    cache: Path
    port: int = DEFAULT_PORT
    threads: int = 1
    slots: int = 2
    """Answers at the same time."""
    slot_tokens: int = 2048
    """Prompt and answer of one slot."""

    @classmethod
    def from_environment(cls, environment: dict[str, str]) -> ServerSettings:
        """Settings by variable.

        Raises:
            ServerRefused: a number is not a number.
        """

        def number(name: str, otherwise: int) -> int:
            text = environment.get(name, "").strip()
            if not text:
                return otherwise
            if not text.isdigit() or int(text) < 1:
                raise ServerRefused(f"{name} is {text!r}; expected a whole number from 1")
            return int(text)

        return cls(
            model_id=environment.get("MODEL_ID", "").strip(),
            cache=Path(environment.get("MODEL_CACHE", "").strip() or "/models"),
            port=number("MODEL_SERVER_PORT", DEFAULT_PORT),
            threads=number("MODEL_SERVER_THREADS", usable_threads(cpu_limit(), processors())),
            slots=number("MODEL_SERVER_SLOTS", 2),
            slot_tokens=number("MODEL_SERVER_SLOT_TOKENS", 2048),
        )


def pinned_digest(settings: ServerSettings) -> str:
    """The manifest digest in MODEL_ID.

    Raises:
        ServerRefused: it has another form.
    """
    try:
        return digest_of(settings.model_id)
    except ValueError as error:
        raise ServerRefused(str(error)) from error


def find_model(settings: ServerSettings) -> Path:
    """The GGUF file of MODEL_ID.

    Raises:
        ServerRefused: MODEL_ID has another form, or the model is not there whole.
    """
    digest = pinned_digest(settings)
    cache = ModelCache(settings.cache)
    folder = cache.folder(digest)
    if not cache.is_whole(digest):
        raise ServerRefused(
            f"{folder}: the model of MODEL_ID is not here whole; MODEL_URI and MODEL_MANIFEST_SHA256 of the"
            " container model-fetch must name the same model, and both containers must mount the same volume"
        )
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise ServerRefused(
            f"{folder}: expected one .gguf file, found {len(files)}; package the run with one GGUF file"
        )
    return files[0]


def check_memory(model: Path, settings: ServerSettings, limit_bytes: int | None) -> None:
    """Refuse now, with numbers, rather than be killed in the middle of an answer.

    Raises:
        ServerRefused: the model needs more than the container may use, or is no GGUF file.
    """
    try:
        need = estimate(read_shape(model), settings.slots * settings.slot_tokens)
    except ValueError as error:
        raise ServerRefused(str(error)) from error
    refusal = need.refusal(limit_bytes)
    if refusal:
        raise ServerRefused(f"{model.name} of {settings.model_id}: {refusal}")


def serve_model(model: Path, settings: ServerSettings, stop: threading.Event) -> None:
    """Load the model and answer until told to stop."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.model_alias = {settings.model_id}
    parameters.hostnames = [HOST]
    parameters.port = settings.port
    parameters.n_parallel = settings.slots
    parameters.n_ctx = settings.slots * settings.slot_tokens
    parameters.kv_unified = False
    parameters.fit_params = False
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = settings.threads
    parameters.cpuparams_batch.n_threads = settings.threads
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.use_jinja = True
    parameters.warmup = True
    parameters.ui = False
    parameters.endpoint_metrics = True
    parameters.verbosity = 1
    started = time.monotonic()
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise ServerRefused(
            f"{model}: llama.cpp could not load it or listen on {HOST}:{settings.port} ({error}); see the lines above"
        ) from error
    logger.info(
        "model served: address=%s model=%s threads=%d slots=%d slot_tokens=%d seconds=%.1f",
        server.listening_address, settings.model_id, settings.threads, settings.slots, settings.slot_tokens,
        time.monotonic() - started,
    )  # fmt: skip
    stop.wait()
    del server


class _NoModelYet(BaseHTTPRequestHandler):
    """What a model server without a model says."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        known = self.path in ("/v1/models", "/health")
        body = json.dumps(
            {"object": "list", "data": []} if known else {"error": {"message": "no model yet"}}
        ).encode()
        self.send_response(200 if known else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        """Probes are no news."""


def serve_nothing(settings: ServerSettings, stop: threading.Event) -> None:
    """Answer that there is no model, until told to stop.

    Raises:
        ServerRefused: the port is taken, or may not be taken.
    """
    try:
        server = ThreadingHTTPServer((HOST, settings.port), _NoModelYet)
    except (OSError, OverflowError) as error:
        raise ServerRefused(
            f"{HOST}:{settings.port} cannot be listened on ({error}); give the container another MODEL_SERVER_PORT,"
            " or end what uses it"
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    logger.info("MODEL_ID is empty: no model was rolled out yet; %s:%d says so", HOST, settings.port)
    stop.wait()
    server.shutdown()
    server.server_close()


def main() -> None:
    """Console script. Ends with 0 on SIGTERM, with 2 when the model cannot be served here."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = ServerSettings.from_environment(dict(os.environ))
        if settings.model_id:
            with ModelCache(settings.cache).using(pinned_digest(settings)):
                model = find_model(settings)
                check_memory(model, settings, memory_limit_bytes())
                serve_model(model, settings, stop)
        else:
            serve_nothing(settings, stop)
    except ServerRefused as error:
        logger.error("%s", error)
        leave_last_words(str(error))
        sys.exit(EXIT_REFUSED)
    logger.info("model server stopped")
