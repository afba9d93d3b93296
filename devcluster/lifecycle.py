"""Brings an instance's parts up in an order that wastes no time, tells how they are, and ends them without a trace."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster import (
    base_model,
    debian,
    go_programs,
    images,
    kueue,
    namespaces,
    node,
    s3,
    weaviate,
    wordpress,
)
from devcluster.access import access
from devcluster.errors import DevclusterError
from devcluster.paths import Instance
from devcluster.processes import Processes
from devcluster.progress import Progress

PARTS = ("node", "wordpress", "weaviate", "s3", "images", "base-model")

OPTIONAL_PARTS = ("kueue",)
"""Those that only come up where they are named."""

_NEEDS_PROGRAMS = {"node", "weaviate", "images", "kueue"}
_ALSO = {"images": "node", "kueue": "node", "base-model": "s3"}
"""A part that is put into another one brings that one up as well."""


@dataclass(frozen=True)
class PartStatus:
    """How one part is, for `status`."""

    part: str
    running: bool
    address: str


def up(instance: Instance, parts: Sequence[str], progress: Progress) -> None:
    """Brings up the parts; what runs already is left alone, what a broken-off call has begun is taken up again."""
    with _alone(instance, progress):
        _up(instance, parts, progress)


def _up(instance: Instance, parts: Sequence[str], progress: Progress) -> None:
    wanted = {*parts, *(_ALSO[part] for part in parts if part in _ALSO)}
    _refuse_host_only(instance)
    _install_packages(wanted, progress)
    if wanted & _NEEDS_PROGRAMS and not go_programs.is_built(progress):
        pid, log = go_programs.start_in_background(kueue="kueue" in wanted)
        progress.say(go_programs.PART, f"are built in the background meanwhile (process {pid}, log {log})")
    processes = Processes(instance, namespaces.open_namespaces(instance))
    # Side by side: the parts mostly wait, for each other's CPU or, on a cold machine, for the compiler.
    with ThreadPoolExecutor(4) as pool:
        compiled = pool.submit(images.compile_environment, progress) if "images" in wanted else None
        chains = [
            pool.submit(_up_storage, instance, processes, wanted, progress),
            pool.submit(_up_wordpress, instance, processes, wanted, progress),
            pool.submit(_up_cluster, instance, processes, wanted, compiled, progress),
        ]
        for ended in chains:
            ended.result()


def _up_storage(instance: Instance, processes: Processes, wanted: set[str], progress: Progress) -> None:
    store = s3.S3(instance, processes)
    if "s3" in wanted:
        s3.up(store, progress)
    if "base-model" in wanted:
        base_model.up(store, progress)


def _up_wordpress(instance: Instance, processes: Processes, wanted: set[str], progress: Progress) -> None:
    if "wordpress" in wanted:
        wordpress.up(in_cluster_wordpress(instance, processes), progress)


def _up_cluster(
    instance: Instance,
    processes: Processes,
    wanted: set[str],
    compiled: Future[None] | None,
    progress: Progress,
) -> None:
    """Node, Weaviate and images.

    Args:
        compiled: the environment's modules, which the project's images need; None without images.
    """
    if not wanted & _NEEDS_PROGRAMS:
        return
    programs = go_programs.ensure(progress)
    a_node = node.Node(instance, processes, programs)
    if "node" in wanted:
        node.up(a_node, progress)
    if "weaviate" in wanted:
        weaviate.up(weaviate.Weaviate(instance, processes, programs), progress)
    if compiled is not None:
        compiled.result()
        images.load_project_images(instance, processes, programs, progress)
    if "kueue" in wanted:
        kueue.up(a_node, progress)


def up_on_host(instance: Instance, progress: Progress) -> None:
    """WordPress alone, on 127.0.0.1 and without namespaces: needs root for Debian's packages only."""
    if namespaces.running_keeper(instance) is not None:
        raise DevclusterError(f"instance {instance.name!r} runs with a node: give --host-only another --name")
    with _alone(instance, progress):
        wordpress.up(host_wordpress(instance), progress)


def down(instance: Instance, progress: Progress, *, wipe: bool) -> list[str]:
    """Ends everything; returns what is left on the machine nevertheless, which is nothing when all went well."""
    doing = f"end instance {instance.name}" + (" and remove its state" if wipe else "")
    with _alone(instance, progress), progress.step("down", doing):
        processes = Processes(instance)
        a_node = node.Node(instance, processes, Path())
        with ThreadPoolExecutor() as pool:
            ends = [
                pool.submit(node.down, a_node),
                pool.submit(weaviate.down, weaviate.Weaviate(instance, processes, Path())),
                pool.submit(s3.down, s3.S3(instance, processes)),
                pool.submit(wordpress.down, in_cluster_wordpress(instance, processes)),
            ]
            for end in ends:
                end.result()
        if os.geteuid() == 0:
            namespaces.close_namespaces(instance)
        left = leftovers(instance)
        if wipe and not left:
            shutil.rmtree(instance.state, ignore_errors=True)
            if instance.state.exists():
                left.append(f"folder {instance.state}")
    return left


def leftovers(instance: Instance) -> list[str]:
    """What of the instance is still on this machine outside its state folder; empty after a complete `down`."""
    return namespaces.leftovers(instance) + [f"file {path}" for path in s3.sockets(instance) if path.exists()]


def status(instance: Instance) -> list[PartStatus]:
    """How each long-running part is."""
    processes = Processes(instance)
    site = found_wordpress(instance)
    programs = (
        "etcd",
        "apiserver",
        "controller-manager",
        "scheduler",
        "containerd",
        "kubelet",
        "proxy",
        "gpu",
    )
    return [
        PartStatus("node", all(map(processes.is_running, programs)), f"https://{instance.node_ip}:6443"),
        PartStatus("wordpress", site.is_up(), site.url),
        PartStatus("weaviate", processes.is_running(weaviate.PART), weaviate.addresses(instance)[0]),
        PartStatus("s3", processes.is_running(s3.PART), s3.address(instance)),
    ]


def environment(instance: Instance) -> dict[str, str]:
    """What a shell or a program needs to use the instance; holds its secrets."""
    return access(instance).as_environment()


def remove_kueue(instance: Instance, progress: Progress) -> None:
    """From a node that goes on."""
    keeper = namespaces.running_keeper(instance)
    if keeper is not None:
        kueue.down(node.Node(instance, Processes(instance, keeper), Path()), progress)


def load_image(instance: Instance, archive: Path, progress: Progress) -> list[str]:
    """Imports a docker archive into the running node."""
    keeper = namespaces.running_keeper(instance)
    if keeper is None:
        raise DevclusterError(
            f"instance {instance.name!r} does not run: python -m devcluster up --name {instance.name}"
        )
    return images.load_archive(Processes(instance, keeper), go_programs.ensure(progress), archive)


def in_cluster_wordpress(instance: Instance, processes: Processes) -> wordpress.WordPress:
    return wordpress.WordPress(instance, processes, address=instance.node_ip, listen="0.0.0.0")  # noqa: S104 (of its own network)


def host_wordpress(instance: Instance) -> wordpress.WordPress:
    return wordpress.WordPress(instance, Processes(instance), address="127.0.0.1", listen="127.0.0.1")


def found_wordpress(instance: Instance) -> wordpress.WordPress:
    """The instance's WordPress wherever it runs."""
    keeper = namespaces.running_keeper(instance)
    if keeper is None:
        return host_wordpress(instance)
    return in_cluster_wordpress(instance, Processes(instance, keeper))


@contextmanager
def _alone(instance: Instance, progress: Progress) -> Iterator[None]:
    """One `up` or `down` of an instance at a time; a second one waits."""
    folder = instance.state.parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{instance.name}.lock").open("w") as file:
        waits = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waits:
                    progress.say("wait", f"another command works on instance {instance.name}")
                waits = True
                time.sleep(0.2)
        yield


def _refuse_host_only(instance: Instance) -> None:
    if namespaces.running_keeper(instance) is None and Processes(instance).is_running(wordpress.PART):
        raise DevclusterError(
            f"instance {instance.name!r} runs WordPress on the host: "
            f"end it with `python -m devcluster down --name {instance.name}`, or choose another --name"
        )


def _install_packages(wanted: set[str], progress: Progress) -> None:
    """All at once, before anything starts: one call of apt instead of several."""
    packages = list(debian.NODE)
    if "wordpress" in wanted:
        packages += wordpress.packages()
    debian.ensure(packages, progress, "packages")
