"""`make quickstart`: WordPress, the four stages and the chat page on this machine, without any cluster."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console

from demo import asking, knowledge_base, untuned_model
from demo.errors import DemoError
from demo.questions import demo_questions
from devcluster import base_model, lifecycle
from devcluster.paths import REPOSITORY, Instance
from devcluster.progress import Progress
from finetune_contract.artifact_layout import DOCUMENTS_FILE, dataset_folder, model_folder
from finetune_trainer.laptop import RESULT_FILE
from finetune_trainer.stores.local_folder import LocalFolder

INSTANCE = "quickstart"
WORKSPACE = REPOSITORY / "out"
RUN_FILE = REPOSITORY / "examples" / "quickstart" / "finetunerun.yaml"
CHAT_PORT, MODEL_PORT = 8000, 8081
BIN = REPOSITORY / ".venv" / "bin"


def quickstart(progress: Progress, console: Console, *, stay: bool) -> int:
    """Everything in order; `stay` leaves the chat page up until Ctrl-C."""
    instance = Instance(INSTANCE)
    lifecycle.up_on_host(instance, progress)
    environment = lifecycle.environment(instance)
    base = base_model.folder(progress)
    untuned = untuned_model.package(progress)
    try:
        with progress.step(
            "run", f"finetune run {RUN_FILE.relative_to(REPOSITORY)} --workspace {WORKSPACE.name}"
        ):
            run_key, dataset_digest = _run(
                environment["WORDPRESS_URL"], base, knowledge_base.credentials(environment)
            )
        documents = WORKSPACE / "store" / dataset_folder(dataset_digest) / DOCUMENTS_FILE
        tuned = WORKSPACE / "store" / model_folder(run_key)
        with (
            _chat(untuned, documents, progress) as site,
            progress.step("ask", "five questions, untuned model"),
        ):
            before = asking.ask_all(site, demo_questions())
        with _chat(tuned, documents, progress) as site:
            with progress.step("ask", "five questions, tuned model"):
                after = asking.ask_all(site, demo_questions())
            asking.side_by_side(demo_questions(), before, after, console)
            if stay:
                console.print(
                    f"\nchat page: {site}/   (Ctrl-C ends it)   WordPress: {environment['WORDPRESS_URL']}/"
                )
                _until_interrupted()
    finally:
        lifecycle.down(instance, progress, wipe=False)
    return 0


def _run(site: str, base: Path, credentials: dict[str, str]) -> tuple[str, str]:
    """The stages, in their own process, with their own output; the run key and the digest of the dataset."""
    command = [
        str(BIN / "finetune"),
        "run",
        str(RUN_FILE),
        "--workspace",
        str(WORKSPACE),
        "--set",
        f"dataset.sources.{knowledge_base.SOURCE}.wordpress.url={site}",
        "--set",
        f"baseModel.uri={base.as_uri()}",
    ]
    if subprocess.run(command, env={**os.environ, **credentials}, check=False).returncode != 0:
        raise DemoError("the run did not finish; the message is above. The same command goes on from here")
    result = json.loads((WORKSPACE / RESULT_FILE).read_text(encoding="utf-8"))
    return str(result["runKey"]), str(result["stages"]["dataset"]["dataset"]["digest"])


@contextmanager
def _chat(model: Path, documents: Path, progress: Progress) -> Iterator[str]:
    """The model server and the Django site with one model."""
    digest = LocalFolder(model.parent).read(f"{model.name}/manifest.json")
    if digest is None:
        raise DemoError(f"{model}: there is no manifest; remove the folder and run the same command again")
    sha256 = hashlib.sha256(digest).hexdigest()
    cache = WORKSPACE / "models"
    environment = {
        **os.environ,
        "MODEL_URI": model.resolve().as_uri() + "/",
        "MODEL_MANIFEST_SHA256": sha256,
        "MODEL_ID": f"sha256:{sha256}",
        "MODEL_CACHE": str(cache),
        "MODEL_SERVER_PORT": str(MODEL_PORT),
        "MODEL_SERVER_URL": f"http://127.0.0.1:{MODEL_PORT}",
        "FINETUNE_DOCUMENTS_FILE": str(documents),
        "FINETUNE_HTTP_HOST": "127.0.0.1",
        "FINETUNE_HTTP_PORT": str(CHAT_PORT),
    }
    log = (WORKSPACE / "chat.log").open("ab")
    with progress.step("chat", "fetch the model, start model server and Django"):
        subprocess.run([BIN / "finetune-model-fetch"], env=environment, check=True, stdout=log, stderr=log)
        running = [
            subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            for command in ([str(BIN / "finetune-model-server")], [sys.executable, "-m", "demo_site"])
        ]
        site = f"http://127.0.0.1:{CHAT_PORT}"
        try:
            _wait_until_ready(site, running, Path(log.name))
        except BaseException:
            _end(running)
            raise
    try:
        yield site
    finally:
        _end(running)
        log.close()


def _wait_until_ready(site: str, running: list[subprocess.Popen[bytes]], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in running):
            raise DemoError(f"the chat ended before it was ready; see {log}")
        try:
            if httpx.get(f"{site}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise DemoError(f"{site}/readyz is not ready after 120 s; see {log}")


def _end(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
