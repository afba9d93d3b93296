"""The operator with many runs at once: `python -m benchmarks.operator_scale --runs 1000`.

A real etcd and API server, the real operator as its own process, and Jobs and pods that a small simulator drives as
KWOK does. Every run goes through all stages to Succeeded (`rollout.mode: None`); in the middle, with all of them
training, the operator is left alone for a while, then killed and started anew. Prints a table and, as its last line,
one JSON object:

reaction_p50, reaction_p95   seconds from the end of a Job to the next Job of its run, or to the run's last status;
                             both moments are the API server's own
requests_per_run             what the operator asked for, but for leases, the rest and the restart
requests                     the same by verb and resource
rest_requests_per_second     while all runs train and nothing happens but that time passes
restart_seconds              from the start of the new process until it has made as many passes as there are runs; the
                             lease of the one that was killed runs out within 15 of them
rss_mib, cpu_seconds         of the operator: most memory held, and processor time over all

With `--soak SECONDS` runs come, succeed in no time and are deleted, and the operator's memory is read all the while:
growth_kib_per_run is the slope of the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks import operator_scale_audit as audit
from benchmarks.operator_scale_cluster import NAMESPACE, OPERATOR, SIMULATOR, ControlPlane, free_port, start
from benchmarks.operator_scale_jobs import JOBS, LABEL_RUN, PODS, RUNS, Api, Phases, Simulator, kubelet
from devcluster.progress import Progress
from finetune_contract.crd_schema import API_VERSION, KIND
from finetune_contract.stage_protocol import Stage
from finetune_operator.outlook import OVER

ROOT = Path(__file__).parents[1]
PART = "scale"
TELL_SECONDS = 10.0
MIB = 1024 * 1024

Json = dict[str, Any]


@dataclass
class Figures:
    """What is printed."""

    runs: int
    rate: float
    timed_out: bool = False
    reached: str = ""
    failed_runs: int = 0
    reaction_p50: float = 0.0
    reaction_p95: float = 0.0
    reactions: int = 0
    requests_per_run: float = 0.0
    rest_requests_per_second: float = 0.0
    rest_cpu_share: float = 0.0
    restart_seconds: float = 0.0
    restart_requests_per_run: float = 0.0
    rss_mib: float = 0.0
    rest_rss_mib: float = 0.0
    cpu_seconds: float = 0.0
    growth_kib_per_run: float | None = None
    seconds: float = 0.0
    load_average: float = 0.0
    requests: dict[str, float] = field(default_factory=dict)
    """A run, by verb and resource; not of the rest."""
    rest_requests: dict[str, float] = field(default_factory=dict)
    """A second."""


class Operator:
    """The operator's process."""

    def __init__(self, plane: ControlPlane, log: Path) -> None:
        self._log = log
        self._port = free_port()
        self._environment = os.environ | {
            "KUBECONFIG": str(plane.kubeconfig(OPERATOR)),
            "POD_NAMESPACE": NAMESPACE,
            "FINETUNE_WATCH_NAMESPACES": NAMESPACE,
            "FINETUNE_TRAINER_IMAGE": "trainer:1",
            "FINETUNE_HTTP_PORT": str(self._port),
            "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("contract", "operator")),
        }
        self._environment.pop("KUBERNETES_SERVICE_HOST", None)
        self.most_rss = 0.0
        self._cpu_before = 0.0
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            argv = [sys.executable, "-m", "finetune_operator"]
            self._process = subprocess.Popen(argv, env=self._environment, stdout=log, stderr=log)
        self._proc = Path("/proc", str(self._process.pid))

    def end(self, number: signal.Signals) -> None:
        self._cpu_before = self.cpu_seconds
        self._process.send_signal(number)
        self._process.wait()

    @property
    def cpu_seconds(self) -> float:
        """Of all processes that were started here, one after the other."""
        with suppress(OSError):
            times = (self._proc / "stat").read_text().rsplit(") ", 1)[1].split()[11:13]
            return self._cpu_before + sum(int(ticks) for ticks in times) / os.sysconf("SC_CLK_TCK")
        return self._cpu_before

    def rss(self) -> float:
        """MiB now; the most is kept."""
        if self._process.poll() is not None:
            raise SystemExit(f"the operator ended: its log is {self._log}")
        pages = int((self._proc / "statm").read_text().split()[1])
        now = pages * os.sysconf("SC_PAGE_SIZE") / MIB
        self.most_rss = max(self.most_rss, now)
        return now

    async def metrics(self) -> dict[str, float]:
        """What it tells of itself; empty while it does not answer."""
        with suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=5) as client:
                text = (await client.get(f"http://127.0.0.1:{self._port}/metrics")).text
            return read_metrics(text)
        return {}


def read_metrics(text: str) -> dict[str, float]:
    """By name without its prefix; of one with labels the sum."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0].removeprefix("finetune_operator_")
            found[name] = found.get(name, 0.0) + float(value)
    return found


def a_run(number: int) -> Json:
    """The run that all are like."""
    store = {"s3": {"bucket": "models", "credentialsSecretRef": {"name": "s3"}}}
    source = {"name": "blog", "wordpress": {"url": "https://blog.example.org"}}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": f"run-{number:05}"},
        "spec": {
            "baseModel": {"uri": "hf://google/gemma-2-2b@main"},
            "dataset": {"sources": [source]},
            "store": store,
            "rollout": {"mode": "None"},
        },
    }


class Benchmark:
    """One measurement, from an empty cluster to its figures."""

    def __init__(
        self,
        options: argparse.Namespace,
        plane: ControlPlane,
        operator: Operator,
        api: Api,
        progress: Progress,
    ) -> None:
        self.options, self.plane, self.operator, self.api, self.progress = (
            options,
            plane,
            operator,
            api,
            progress,
        )
        holds = options.soak is None
        self.simulator = Simulator(
            api, lambda stage: (None if stage is Stage.TRAIN else options.stage_seconds) if holds else 0.0
        )
        self.phases = Phases(api)
        self.figures = Figures(options.runs, options.rate)
        self._rest = (0.0, 0.0)
        self._restart = (0.0, 0.0)

    async def measure(self) -> Figures:
        """Everything, or as much as the time allows."""
        began = time.monotonic()
        helpers = [
            asyncio.create_task(work) for work in (self.simulator.run(), self.phases.run(), self._sample())
        ]
        try:
            async with asyncio.timeout(self.options.timeout):
                await (self._live() if self.options.soak is None else self._soak(self.options.soak))
        except TimeoutError:
            self.figures.timed_out = True
        finally:
            for helper in helpers:
                helper.cancel()
        self.figures.seconds = time.monotonic() - began
        self.figures.rss_mib = self.operator.most_rss
        self.figures.cpu_seconds = self.operator.cpu_seconds
        self.figures.load_average = os.getloadavg()[1]
        self._read_audit()
        for problem in self.simulator.problems[:3]:
            self.progress.say(PART, f"the simulator failed: {problem}")
        return self.figures

    async def _sample(self) -> None:
        while True:
            self.operator.rss()
            await asyncio.sleep(0.5)

    async def _live(self) -> None:
        runs = self.options.runs
        self.figures.reached = "starting"
        creating = asyncio.create_task(self._create(runs))
        await self._until("runs train", runs, lambda: min(len(self.simulator.running), self._in("Training")))
        await creating
        self.figures.reached = "all train"
        await asyncio.sleep(5)
        await self._stand_still()
        await self._start_anew()
        self.figures.reached = "operator started anew"
        ending = asyncio.create_task(self._end())
        await self._until("runs ended", runs, lambda: sum(self._in(phase) for phase in OVER))
        await ending
        self.figures.reached = "all ended"
        self.figures.failed_runs = runs - self._in("Succeeded")
        await asyncio.sleep(2)  # what the last of them is asked for

    def _in(self, phase: str) -> int:
        return self.phases.count()[phase]

    async def _create(self, runs: int) -> None:
        """At the rate; late ones are made up for."""
        began = time.monotonic()
        for number in range(runs):
            await asyncio.sleep(max(0.0, began + number / self.options.rate - time.monotonic()))
            await self.api.send("POST", RUNS, a_run(number))

    async def _end(self) -> None:
        began, ended = time.monotonic(), 0
        while ended < self.options.runs:
            await asyncio.sleep(max(0.01, began + ended / self.options.rate - time.monotonic()))
            ended += self.simulator.end_next()

    async def _until(self, what: str, wanted: int, count: Callable[[], int]) -> None:
        began, told = time.monotonic(), 0.0
        while (done := count()) < wanted:
            now = time.monotonic()
            if now - told >= TELL_SECONDS:
                told = now
                left = (now - began) / done * (wanted - done) if done else 0.0
                eta = f", about {left:.0f} s left" if left else ""
                metrics = await self.operator.metrics()
                queue = f"queue {metrics.get('queue_depth', 0):.0f}, {self.operator.rss():.0f} MiB"
                self.progress.moving(PART, f"{done} of {wanted} {what}{eta}; {queue}")
            await asyncio.sleep(0.2)
        self.progress.say(PART, f"{wanted} {what} after {time.monotonic() - began:.0f} s")

    async def _stand_still(self) -> None:
        seconds = self.options.rest_seconds
        self.progress.say(PART, f"nothing happens for {seconds:.0f} s")
        before, cpu = time.time(), self.operator.cpu_seconds
        await asyncio.sleep(seconds)
        self._rest = (before, time.time())
        self.figures.rest_cpu_share = (self.operator.cpu_seconds - cpu) / seconds
        self.figures.rest_rss_mib = self.operator.rss()

    async def _start_anew(self) -> None:
        self.progress.say(PART, "kill the operator and start it anew")
        self.operator.end(signal.SIGKILL)
        began, told = time.time(), 0.0
        self.operator.start()
        while (done := (await self.operator.metrics()).get("passes_total", 0.0)) < self.options.runs:
            await asyncio.sleep(0.25)
            if (now := time.time()) - told >= TELL_SECONDS:
                told = now
                self.progress.moving(PART, f"{done:.0f} of {self.options.runs} runs were looked at")
        self._restart = (began, time.time())
        self.figures.restart_seconds = self._restart[1] - began
        self.progress.say(PART, f"all were looked at after {self.figures.restart_seconds:.0f} s")

    def _requests(self) -> list[audit.Request]:
        """What the audit log holds; its last line may be half written."""
        with self.plane.audit_log.open() as lines:
            return audit.read(line for line in lines if line.endswith("\n"))

    async def _soak(self, seconds: float) -> None:
        began, number = time.monotonic(), 0
        points: list[tuple[int, float]] = []
        told = 0.0
        while (now := time.monotonic()) - began < seconds:
            await asyncio.sleep(max(0.0, began + number / self.options.rate - now))
            if len(self.phases.of) < self.options.runs:
                await self.api.send("POST", RUNS, a_run(number % 100_000))
                number += 1
            for name in [name for name, phase in self.phases.of.items() if phase == "Succeeded"]:
                await self._delete(name)
            points.append((number, self.operator.rss()))
            if now - told >= TELL_SECONDS:
                told = now
                left = seconds - (now - began)
                self.progress.moving(PART, f"{number} runs, {points[-1][1]:.0f} MiB, {left:.0f} s left")
        half = points[len(points) // 2 :]
        self.figures.runs, self.figures.reached = number, "soaked"
        self.figures.growth_kib_per_run = slope(half) * 1024

    async def _delete(self, name: str) -> None:
        """The run and, as there is no garbage collector here, what belongs to it."""
        self.phases.of.pop(name, None)
        selector = f"{LABEL_RUN}={name}"
        await self.api.send("DELETE", f"{RUNS}/{name}")
        await self.api.send("DELETE", JOBS, {"propagationPolicy": "Background"}, labelSelector=selector)
        await self.api.send("DELETE", PODS, {"gracePeriodSeconds": 0}, labelSelector=selector)

    def _read_audit(self) -> None:
        figures = self.figures
        requests = self._requests()
        seconds = audit.reactions(requests)
        figures.reactions = len(seconds)
        figures.reaction_p50, figures.reaction_p95 = (audit.percentile(seconds, p) for p in (0.5, 0.95))

        def within(span: tuple[float, float]) -> list[audit.Request]:
            return [request for request in requests if span[0] <= request.began < span[1]]

        rest, anew = within(self._rest), within(self._restart)
        at_rest, all_asked = audit.asked(rest), audit.asked(requests)
        restarting = audit.asked(anew)
        all_asked.subtract(at_rest)
        all_asked.subtract(restarting)
        figures.requests = _each(all_asked, max(1, figures.runs))
        figures.requests_per_run = sum(all_asked.values()) / max(1, figures.runs)
        if length := self._rest[1] - self._rest[0]:
            figures.rest_requests = _each(at_rest, length)
            figures.rest_requests_per_second = sum(at_rest.values()) / length
        if anew:
            figures.restart_requests_per_run = sum(restarting.values()) / max(1, figures.runs)


def _each(counts: Counter[str], share: float) -> dict[str, float]:
    return {kind: round(count / share, 3) for kind, count in sorted(counts.items()) if count}


def slope(points: list[tuple[int, float]]) -> float:
    """Of the line that fits best; 0 when nothing moves along it."""
    if len(points) < 2:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    width = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / width if width else 0.0


def table(figures: Figures) -> str:
    """The same for people."""
    rows = [(name, value) for name, value in asdict(figures).items() if not isinstance(value, dict)]
    rows += [(f"requests a run: {kind}", value) for kind, value in figures.requests.items()]
    rows += [(f"requests a second at rest: {kind}", value) for kind, value in figures.rest_requests.items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(
        f"{name:<{width}}  {value:.3f}" if isinstance(value, float) else f"{name:<{width}}  {value}"
        for name, value in rows
    )


async def main(options: argparse.Namespace, folder: Path) -> Figures:
    """Start everything, measure, end everything."""
    progress, kubelet_port = Progress(), free_port()
    crds = sorted((ROOT / "crds").glob("*.yaml"))
    plane = await asyncio.to_thread(start, folder, crds, kubelet_port, progress)
    operator = None
    api = Api(plane.server, plane.tls(SIMULATOR))
    try:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(str(folder / "pki/kubelet.crt"), str(folder / "pki/kubelet.key"))
        async with kubelet(kubelet_port, tls):
            operator = Operator(plane, folder / "operator.log")
            return await Benchmark(options, plane, operator, api, progress).measure()
    finally:
        await api.close()
        if operator is not None:
            with suppress(ProcessLookupError):
                operator.end(signal.SIGTERM)
        plane.stop()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator_scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--runs", type=int, default=100, help="how many at once (default: 100)")
    parser.add_argument("--rate", type=float, default=4.0, help="runs that begin, and that end, a second (4)")
    parser.add_argument("--stage-seconds", type=float, default=1.0, help="of each stage but the training (1)")
    parser.add_argument("--rest-seconds", type=float, default=60.0, help="how long nothing happens (60)")
    parser.add_argument(
        "--soak", type=float, metavar="SECONDS", help="let runs come and go for so long instead"
    )
    parser.add_argument(
        "--timeout", type=float, default=3600.0, help="seconds; then what was reached is printed"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep logs and audit log in this new folder"
    )
    return parser.parse_args()


if __name__ == "__main__":
    chosen = arguments()
    with tempfile.TemporaryDirectory(prefix="operator-scale-") as temporary:
        place = chosen.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        result = asyncio.run(main(chosen, place.resolve()))
    print(table(result))
    print(json.dumps(asdict(result)))
