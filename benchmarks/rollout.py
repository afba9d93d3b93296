"""What readers notice of a rollout: `make demo` first, then `python -m benchmarks.rollout`.

The site runs with several replicas and is asked all the time through its Service, while a run takes it from the untuned
model to the tuned one, and then while one does whose model file was spoilt in the store. Both runs adopt the model of
the demo, so that nothing is trained. Prints one JSON object as its last line:

requests, failed        pages and answers that were asked for in the time of the rollout, and those that did not come
rollout_seconds         from the change of the Deployment to the end of the run
detected_seconds        from the end of the first container that failed to the decision to go back
restored_seconds        from that decision to the end of the run, with the previous model in all pods

The demo is as it was afterwards, with one replica.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from demo import untuned_model
from demo.cluster import Cluster
from demo.errors import DemoError
from demo.manifests import NAMESPACE, SITE_NODE_PORT
from demo.parts import Setting
from demo.questions import demo_questions
from demo.runs import is_ended
from demo.story import DEPLOYMENT, QUICKSTART
from devcluster.progress import Progress
from finetune_contract.artifact_layout import GGUF_FILE
from finetune_operator.rollout.record import quarantine_key, record_name
from finetune_trainer.run_settings import with_settings

Json = dict[str, Any]
PART = "rollout"
PAGES_A_SECOND = 4.0
TIMEOUT_SECONDS = 30.0
LOOK_EVERY_SECONDS = 0.5
PATIENCE_SECONDS = 600.0


@dataclass
class Visitors:
    """Readers of the site: one that loads a page four times a second, and one that asks question after question.

    Each request has a connection of its own, as a new visitor's has.
    """

    site: str
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Let them come until the block ends."""
        threads = [threading.Thread(target=visit) for visit in (self._load_pages, self._ask)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _load_pages(self) -> None:
        while not self._over.wait(1 / PAGES_A_SECOND):
            self._request("GET", "/")

    def _ask(self) -> None:
        questions = [question.question for question in demo_questions()]
        while not self._over.is_set():
            question = questions[self.requests % len(questions)]
            self._request("POST", "/api/chat", json={"question": question})

    def _request(self, method: str, path: str, **more: Any) -> None:
        begun = time.monotonic()
        try:
            reply = httpx.request(
                method,
                f"{self.site}{path}",
                headers={"Accept": "application/json, text/html", "Connection": "close"},
                timeout=TIMEOUT_SECONDS,
                **more,
            )
            problem = "" if reply.status_code == 200 else f"{method} {path}: {reply.status_code}"
        except httpx.HTTPError as error:
            problem = f"{method} {path}: {type(error).__name__} {error}"
        with self._lock:
            self.requests += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if problem:
                self.failures.append(f"{datetime.now(UTC):%H:%M:%S} {problem}")


class RolloutBenchmark:
    """The running demo, its tuned model, and what is done to them."""

    def __init__(self, setting: Setting, replicas: int, progress: Progress) -> None:
        self.cluster: Cluster = setting.cluster()
        self.environment = setting.environment()
        self.site = f"http://{setting.instance.node_ip}:{SITE_NODE_PORT}"
        self.replicas = replicas
        self.progress = progress
        self.run = with_settings((QUICKSTART / "finetunerun.yaml").read_text(), [])
        # the smoke test would keep the spoilt model from the visitors, and it is their patience that is measured
        self.run["spec"]["rollout"]["smokeTest"] = {"questions": 0}
        live = self.cluster.get("finetunerun", self.run["metadata"]["name"], "-n", NAMESPACE)
        if live is None or live.get("status", {}).get("phase") != "Succeeded":
            raise DemoError("there is no finished demo; run `make demo` first")
        self.model_uri: str = live["status"]["artifact"]["uri"]
        self.model_id: str = live["status"]["artifact"]["manifestSha256"]

    def measure(self) -> Json:
        """Both rollouts."""
        untuned = untuned_model.upload(untuned_model.package(self.progress), self.environment, self.progress)
        try:
            self._scale(self.replicas)
            self._serve(untuned)
            good = self._roll_out("rollout-good", "Succeeded")
            self._serve(untuned)
            with self._spoilt_model():
                broken = self._roll_out("rollout-broken", "RolledBack")
        finally:
            self._lift_quarantine()
            self._kubectl("delete", "finetunerun", "rollout-good", "rollout-broken", "--ignore-not-found")
            self._scale(1)
        return {"replicas": self.replicas, "good": good, "broken": broken}

    def _roll_out(self, name: str, expected: str) -> Json:
        self._kubectl("delete", "finetunerun", name, "--ignore-not-found", "--wait")
        visitors = Visitors(self.site)
        with (
            self.progress.step(
                PART, f"{name}: {self.run['metadata']['name']}'s model, visitors at {self.site}"
            ),
            visitors.coming(),
        ):
            self.cluster.apply([{**self.run, "metadata": {**self.run["metadata"], "name": name}}])
            seen = self._follow(name)
        status = seen.pop("status")
        if status["phase"] != expected:
            raise DemoError(
                f"finetunerun/{name} ended as {status['phase']}, not {expected}: {status['conditions']}"
            )
        for failure in visitors.failures:
            print(failure, file=sys.stderr)
        return {
            "requests": visitors.requests,
            "failed": len(visitors.failures),
            "slowest_seconds": round(visitors.slowest, 1),
            **seen,
        }

    def _follow(self, name: str) -> Json:
        """Wait for the end; the moments that count, as they were seen."""
        patched = failed = turned = None
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            run = self.cluster.get("finetunerun", name, "-n", NAMESPACE) or {}
            status = run.get("status", {})
            rollout = status.get("rollout") or {}
            now = time.time()
            if rollout.get("phase") in ("Progressing", "Verifying", "RollingBack"):
                patched = patched or now
                failed = failed or self._first_failure()
            if rollout.get("phase") == "RollingBack":
                turned = turned or now
            if run and is_ended(run):
                found: Json = {"rollout_seconds": round(now - (patched or now), 1)}
                if turned:
                    found["detected_seconds"] = round(turned - (failed or turned), 1)
                    found["restored_seconds"] = round(now - turned, 1)
                return {**found, "status": status}
            time.sleep(LOOK_EVERY_SECONDS)
        raise DemoError(f"finetunerun/{name} has not ended in {PATIENCE_SECONDS:.0f} s")

    def _first_failure(self) -> float | None:
        """When the first container of the site's pods ended badly, by the kubelet's clock, which is this machine's."""
        pods = self.cluster.get("pods", "-n", NAMESPACE, "-l", f"app.kubernetes.io/name={DEPLOYMENT}") or {}
        ends = []
        for pod in pods.get("items", []):
            for container in pod["status"].get("initContainerStatuses", []):
                for state in (container.get("state", {}), container.get("lastState", {})):
                    ended = state.get("terminated") or {}
                    if ended.get("exitCode"):
                        ends.append(datetime.fromisoformat(ended["finishedAt"]).timestamp())
        return min(ends, default=None)

    def _serve(self, model: untuned_model.ServableModel) -> None:
        with self.progress.step(PART, f"back to the untuned model, {self.replicas} replicas"):
            untuned_model.point(self.cluster, DEPLOYMENT, model)
            self._wait()

    def _scale(self, replicas: int) -> None:
        self._kubectl("scale", f"deployment/{DEPLOYMENT}", f"--replicas={replicas}")
        self._wait()

    def _wait(self) -> None:
        self._kubectl("rollout", "status", f"deployment/{DEPLOYMENT}", "--timeout=300s")

    def _kubectl(self, *arguments: str) -> None:
        self.cluster.kubectl("-n", NAMESPACE, *arguments)

    def _lift_quarantine(self) -> None:
        """The model is whole again, and may go live again."""
        entry = {"data": {quarantine_key(self.model_id): None}}
        patch = ("--type=merge", f"--patch={json.dumps(entry)}")
        self._kubectl("patch", "configmap", record_name(DEPLOYMENT), *patch)

    @contextmanager
    def _spoilt_model(self) -> Iterator[None]:
        """Another file in the place of the tuned model's, as a broken disk or a careless hand would leave it."""
        s3 = untuned_model.s3_client(self.environment)
        bucket, _, prefix = self.model_uri.removeprefix("s3://").partition("/")
        key = f"{prefix.rstrip('/')}/{GGUF_FILE}"
        whole = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        s3.put_object(Bucket=bucket, Key=key, Body=whole[::-1])
        try:
            yield
        finally:
            s3.put_object(Bucket=bucket, Key=key, Body=whole)


def main() -> int:
    """Exit code 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rollout",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--replicas", type=int, default=2, help="pods of the site (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        result = RolloutBenchmark(Setting.from_environment(), arguments.replicas, Progress()).measure()
    except (DemoError, subprocess.SubprocessError) as error:
        print(f"rollout: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
