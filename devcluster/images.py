"""Container images without a builder: an archive of a folder, handed to the node's containerd.

The project's image holds our own code only. Python with its packages, 7 GB, is not copied: every container of the node
gets the host's /usr and the project's environment mounted read-only (see `base_runtime_spec`). An
image for a registry is built from the project's Dockerfiles instead.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.commands import run
from devcluster.errors import DevclusterError
from devcluster.paths import REPOSITORY, VENV, VENV_PYTHON, Instance, site_packages
from devcluster.processes import Processes
from devcluster.progress import Progress

PART = "images"
PAUSE, COREDNS = "localhost/pause:1", "localhost/coredns:1"
PROJECT_IMAGES = (
    "localhost/finetune-operator:dev",
    "localhost/finetune-trainer:dev",
    "localhost/finetune-serving:dev",
    "localhost/finetune-django:dev",
)
USER_ID = 65532
CONTAINER_VENV = Path("/opt/finetune/venv")
"""Not where the clone has it: a clone below /tmp or /work would be hidden by a volume that a pod mounts there."""

_LOADED_IN_CONTAINERS = (
    "torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.generation.utils",
    "transformers.integrations.bitsandbytes",
    "peft",
    "peft.tuners.lora.bnb",
    "peft.utils.transformers_weight_conversion",
    "bitsandbytes",
    "convert_hf_to_gguf",
    "conversion.llama",
    "gguf",
    "weaviate",
    "boto3",
    "boto3.s3.transfer",
    "bs4",
    "datasketch",
    "markdownify",
    "scipy.integrate",
    "rich.console",
    "rich._emoji_codes",
    "anyio._backends._asyncio",
    "kopf",
    "prometheus_client",
    "kubernetes.client",
    "kubernetes.aio.client",
    "django.contrib.staticfiles.finders",
    "django.core.handlers.asgi",
    "django.middleware.csrf",
    "django.utils.cache",
    "httpx",
    "httpcore",
    "uvicorn",
    "uvicorn.protocols.http.h11_impl",
    "xllamacpp",
)
_AGAINST_BYTECODE = frozenset({"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"})
_IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""
# A file that does not compile is left as it is: the container that loads it says what is wrong with it.
_COMPILE_APP = """
import compileall, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
compileall.compile_dir(sys.argv[1], quiet=2, stripdir=sys.argv[1], prependdir="/app", invalidation_mode=mode)
"""
_PACKAGE_FOLDERS = ("contract", "operator", "trainer_image", "serving", "django_app")
_BASE_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class ImageConfig:
    """What a container of the image starts with unless its pod says otherwise."""

    entrypoint: Sequence[str] = ()
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"


def write_archive(path: Path, names: Sequence[str], rootfs: Path, config: ImageConfig) -> None:
    """Writes one image under several names; equal input gives an equal file."""
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        for entry in sorted(rootfs.iterdir()):
            tar.add(entry, arcname=entry.name, filter=_without_history)
    with layer.open("rb") as file:
        diff_id = hashlib.file_digest(file, "sha256").hexdigest()
    described = {
        "architecture": _architecture(),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": list(config.entrypoint) or None,
            "User": config.user,
            "Env": [f"{name}={value}" for name, value in config.env.items()],
            "WorkingDir": config.working_dir,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
    }
    config_bytes = json.dumps(described).encode()
    config_name = hashlib.sha256(config_bytes).hexdigest() + ".json"
    manifest = json.dumps(
        [{"Config": config_name, "RepoTags": list(names), "Layers": ["layer.tar"]}]
    ).encode()
    unfinished = path.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w") as tar:
        for name, content in (("manifest.json", manifest), (config_name, config_bytes)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        tar.add(layer, arcname="layer.tar", filter=_without_history)
    layer.unlink()
    unfinished.rename(path)


def load_node_images(instance: Instance, processes: Processes, programs: Path) -> None:
    """The two images that the node itself needs: the pods' sandbox and the name server."""
    for image, program in ((PAUSE, "pause"), (COREDNS, "coredns")):
        load_program(instance, processes, programs, image, programs / program)


def load_program(
    instance: Instance,
    processes: Processes,
    programs: Path,
    image: str,
    program: Path,
    *,
    place: str = "",
    user: str = "",
) -> None:
    """An image of one program that needs nothing but itself.

    Args:
        programs: the folder of the node's own programs.
        place: its name in the image; by default the one that it has.
        user: who it runs as; by default root.
    """
    digest = _file_digest(program)
    if _is_loaded(instance, image, digest):
        return
    place = place or program.name
    archive = instance.state / "images" / f"{program.name}-{digest[:16]}.tar"
    rootfs = _empty(instance.state / "images" / "rootfs")
    shutil.copy2(program, rootfs / place)
    write_archive(archive, [image], rootfs, ImageConfig(entrypoint=[f"/{place}"], user=user))
    load_archive(processes, programs, archive)
    archive.unlink()
    shutil.rmtree(rootfs)
    _mark_loaded(instance, image, digest)


def load_project_images(instance: Instance, processes: Processes, programs: Path, progress: Progress) -> None:
    """Packs this clone's code and gives it to the node, when the code is not the one the node already has.

    Comes after `compile_environment`: the node's containers use the same environment.
    """
    digest = source_digest()
    if all(_is_loaded(instance, image, digest) for image in PROJECT_IMAGES):
        progress.say(PART, f"already up: the node has this code (digest {digest[:12]})")
        return
    with progress.step(PART, "build the wheel, pack it, import it: " + " ".join(PROJECT_IMAGES)):
        rootfs = _empty(instance.state / "images" / "rootfs")
        _lay_out_project(rootfs, instance.state / "images")
        archive = instance.state / "images" / "project.tar"
        write_archive(archive, PROJECT_IMAGES, rootfs, _project_config())
        load_archive(processes, programs, archive)
        archive.unlink()
        shutil.rmtree(rootfs)
        for image in PROJECT_IMAGES:
            _mark_loaded(instance, image, digest)


def load_archive(processes: Processes, programs: Path, archive: Path) -> list[str]:
    """Imports a docker archive into the node; returns the lines that containerd's client prints."""
    if not archive.is_file():
        raise DevclusterError(f"{archive} is not there: expected an archive as `docker save` writes it")
    ctr = [*processes.entering(), str(programs / "ctr"), "--namespace", "k8s.io", "images", "import"]
    return run([*ctr, archive.absolute()]).splitlines()


def source_digest() -> str:
    """Changes whenever something that the images hold changes."""
    digest = hashlib.sha256()
    files = [REPOSITORY / "pyproject.toml", REPOSITORY / "uv.lock", Path(__file__)]
    for folder in _PACKAGE_FOLDERS:
        files += [path for path in sorted((REPOSITORY / folder).rglob("*")) if path.is_file()]
    for path in files:
        if "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(REPOSITORY)).encode() + b"\0" + _file_digest(path).encode())
    digest.update(json.dumps(host_mounts()).encode())
    return digest.hexdigest()


def compile_environment(progress: Progress) -> None:
    """Lets Python leave compiled modules in the environment; containers would compile them at every start."""
    compiled = "\n".join((_file_digest(REPOSITORY / "uv.lock"), *_LOADED_IN_CONTAINERS))
    marker = VENV / ".devcluster-bytecode"
    if marker.exists() and marker.read_text() == compiled:
        return
    with progress.step(PART, "compile the Python modules that the containers will load (once)"):
        # a shell that keeps Python from writing bytecode would make every container compile at every start
        writing = {name: value for name, value in os.environ.items() if name not in _AGAINST_BYTECODE}
        run([VENV_PYTHON, "-c", _IMPORT_ALL, *_LOADED_IN_CONTAINERS], cwd=Path("/"), env=writing)
        marker.write_text(compiled)


def base_runtime_spec(programs: Path) -> str:
    """containerd's default for every container of the node, with the host's Python mounted read-only."""
    spec = json.loads(run([programs / "ctr", "oci", "spec"]))
    spec["process"].pop("rlimits", None)
    for destination, source in host_mounts().items():
        spec["mounts"].append(
            {
                "destination": destination,
                "source": source,
                "type": "bind",
                "options": ["rbind", "ro", "nosuid", "nodev"],
            }
        )
    return json.dumps(spec, indent=1)


def host_mounts() -> dict[str, str]:
    """Host folders that a container needs to run the project's environment, by their place in the container."""
    prefix = run([VENV_PYTHON, "-c", "import sys; print(sys.base_prefix)"]).strip()
    own = {} if prefix == "/usr" or prefix.startswith("/usr/") else {prefix: prefix}
    return {"/usr": "/usr", **own, str(CONTAINER_VENV): str(VENV)}


def _lay_out_project(rootfs: Path, scratch: Path) -> None:
    wheels = _empty(scratch / "wheel")
    run(
        ["uv", "build", "--wheel", "--no-build-isolation", "--python", VENV_PYTHON, "--out-dir", wheels],
        cwd=REPOSITORY,
    )
    wheel = next(wheels.glob("*.whl"))
    target = ("--target", rootfs / "app", "--python", VENV_PYTHON, "--no-deps", "--link-mode=copy")
    run(["uv", "pip", "install", "--quiet", *target, wheel])
    shutil.rmtree(wheels)
    for script in (rootfs / "app" / "bin").iterdir():
        script.write_text(script.read_text().replace(str(VENV), str(CONTAINER_VENV)))
    run([VENV_PYTHON, "-c", _COMPILE_APP, rootfs / "app"])

    for name in ("bin", "sbin", "lib", "lib64"):
        (rootfs / name).symlink_to(f"usr/{name}")
    for name in ("usr", "proc", "sys", "dev", "run", "var/tmp", "etc/ssl/certs", "tmp"):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    (rootfs / "etc/passwd").write_text(
        f"root:x:0:0:root:/root:/usr/sbin/nologin\nnonroot:x:{USER_ID}:{USER_ID}:nonroot:/tmp:/usr/sbin/nologin\n"
    )
    (rootfs / "etc/group").write_text(f"root:x:0:\nnonroot:x:{USER_ID}:\n")
    (rootfs / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    for name in ("ld.so.cache", "ssl/certs/ca-certificates.crt", "mime.types", "services", "protocols"):
        if Path("/etc", name).is_file():
            shutil.copy(Path("/etc", name), rootfs / "etc" / name)


def _project_config() -> ImageConfig:
    return ImageConfig(
        user=f"{USER_ID}:{USER_ID}",
        env={
            "PATH": f"/app/bin:{CONTAINER_VENV}/bin:{_BASE_PATH}",
            "PYTHONPATH": f"/app:{CONTAINER_VENV / site_packages().relative_to(VENV)}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "HOME": "/tmp",  # noqa: S108
        },
        working_dir="/app",
    )


def _without_history(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Files of an image belong to root and carry no times, so that its digest speaks of content alone."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _is_loaded(instance: Instance, image: str, digest: str) -> bool:
    mark = _loaded_mark(instance, image)
    return mark.exists() and mark.read_text() == digest


def _mark_loaded(instance: Instance, image: str, digest: str) -> None:
    mark = _loaded_mark(instance, image)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest)


def _loaded_mark(instance: Instance, image: str) -> Path:
    return instance.state / "images" / ("loaded-" + image.replace("/", "_").replace(":", "_"))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
