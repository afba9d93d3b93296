"""`python -m devcluster`: the command line.

Each command loads only what it needs, so that `build --background` works before the environment exists.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster.errors import DevclusterError
from devcluster.progress import Progress

if TYPE_CHECKING:
    from devcluster.paths import Instance

PARTS = ("node", "wordpress", "weaviate", "s3", "images", "base-model")
OPTIONAL_PARTS = ("kueue",)

_DESCRIPTION = """\
A real single-node Kubernetes with WordPress, Weaviate and S3 on this machine, without Docker.

  node        etcd, API server, controllers, scheduler, containerd, kubelet, proxy, CoreDNS; one nvidia.com/gpu
  wordpress   Debian's WordPress on MariaDB with the sample site              http://NODE_IP:8091
  weaviate    the real server, with API keys                                  http://NODE_IP:8080, gRPC 50051
  s3          SeaweedFS, with the bucket `models`                             http://NODE_IP:8333
  images      this clone's code as localhost/finetune-{operator,trainer,serving,django}:dev
  base-model  SmolLM2-135M-Instruct in s3://models/base/smollm2-135m-instruct/
  kueue       the queue of Jobs, where it is named: up kueue

NODE_IP is 10.201.0.2 for the instance `demo` and 10.202.0.2 for `test`; the host and the pods use the same addresses.
All state lies in .devcluster/NAME/ of this clone; built programs lie in the cache (~/.cache/finetune-operator).
"""

_EXAMPLES = """\
examples:
  python -m devcluster up                        everything, as instance `demo`; repeat it after any interruption
  python -m devcluster up --name test weaviate   one part of another instance
  eval "$(python -m devcluster env)"             then: kubectl get nodes; curl $WORDPRESS_URL
  python -m devcluster down --wipe               leaves nothing behind
"""


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 1 with the reason on stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments, Progress()) or 0)
    except DevclusterError as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("devcluster: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m devcluster",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    named = argparse.ArgumentParser(add_help=False)
    named.add_argument(
        "--name", default="demo", help="which instance; several run side by side (default: demo)"
    )

    build = commands.add_parser("build", help="build the Go programs and fill the cache; needs no root")
    build.add_argument(
        "--background", action="store_true", help="return at once; `up` waits and shows how far it is"
    )
    build.add_argument(
        "--only-programs", action="store_true", help="leave kubectl, helm and the base model for later"
    )
    build.add_argument("--kueue", action="store_true", help="build Kueue, too, after the others")
    build.set_defaults(command=_build)

    up = commands.add_parser("up", parents=[named], help="bring parts up; what runs already is left alone")
    up.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"of {', '.join(PARTS)} (default: all), {', '.join(OPTIONAL_PARTS)}",
    )
    up.add_argument(
        "--host-only", action="store_true", help="WordPress alone, on 127.0.0.1:8091, without a node"
    )
    up.set_defaults(command=_up)

    down = commands.add_parser(
        "down", parents=[named], help="end everything; the state stays for the next `up`"
    )
    down.add_argument("--wipe", action="store_true", help="remove the state as well")
    down.set_defaults(command=_down)

    status = commands.add_parser("status", parents=[named], help="which parts run, and where they answer")
    status.add_argument("-o", "--output", choices=("text", "json"), default="text")
    status.set_defaults(command=_status)

    env = commands.add_parser(
        "env", parents=[named], help="print `export` lines for eval; they hold the secrets"
    )
    env.add_argument("-o", "--output", choices=("shell", "json"), default="shell")
    env.set_defaults(command=_env)

    clean = commands.add_parser(
        "clean-caches", help="remove built programs, tools and the base model of all clones"
    )
    clean.set_defaults(command=_clean_caches)

    load = commands.add_parser("load-image", parents=[named], help="import an image that `docker save` wrote")
    load.add_argument("archive", type=Path)
    load.set_defaults(command=_load_image)

    wordpress = commands.add_parser("wordpress", help="change the sample site while it runs")
    actions = wordpress.add_subparsers(required=True, metavar="ACTION")
    set_post = actions.add_parser(
        "set-post", parents=[named], help="replace words in one post through the REST API"
    )
    set_post.add_argument(
        "--slug", required=True, help="the post's or page's slug, the last part of its address"
    )
    set_post.add_argument("--replace", nargs=2, required=True, metavar=("OLD", "NEW"))
    set_post.set_defaults(command=_set_post)
    return parser


def _instance(arguments: argparse.Namespace) -> Instance:
    from devcluster.paths import Instance

    return Instance(arguments.name)


def _build(arguments: argparse.Namespace, progress: Progress) -> None:
    from devcluster import go_programs

    if arguments.background:
        pid, log = go_programs.start_in_background(kueue=arguments.kueue)
        progress.say(go_programs.PART, f"are built by process {pid}; log: {log}")
        return
    folder = go_programs.ensure(progress)
    if arguments.kueue:
        os.nice(10)  # nobody waits for it yet
        go_programs.ensure(progress, go_programs.KUEUE)
    if not arguments.only_programs:
        from devcluster import base_model, kubectl

        kubectl.tools_folder()
        base_model.folder(progress)
    print(folder)


def _up(arguments: argparse.Namespace, progress: Progress) -> None:
    parts = (*PARTS, *OPTIONAL_PARTS)
    unknown = set(arguments.parts) - set(parts)
    if unknown:
        raise DevclusterError(f"there is no part {sorted(unknown)[0]!r}; the parts are {', '.join(parts)}")
    from devcluster import lifecycle

    instance = _instance(arguments)
    if arguments.host_only:
        if arguments.parts not in ([], ["wordpress"]):
            raise DevclusterError("--host-only is for WordPress alone: the other parts need a node")
        lifecycle.up_on_host(instance, progress)
    else:
        lifecycle.up(instance, arguments.parts or PARTS, progress)
    progress.say("up", f'to use it: eval "$(python -m devcluster env --name {instance.name})"')


def _down(arguments: argparse.Namespace, progress: Progress) -> int:
    from devcluster import lifecycle

    left = lifecycle.down(_instance(arguments), progress, wipe=arguments.wipe)
    for what in left:
        print(f"devcluster: still there: {what}", file=sys.stderr)
    return 1 if left else 0


def _status(arguments: argparse.Namespace, progress: Progress) -> None:
    from dataclasses import asdict

    from devcluster import lifecycle

    parts = lifecycle.status(_instance(arguments))
    if arguments.output == "json":
        print(json.dumps({part.part: asdict(part) for part in parts}, indent=1))
        return
    for part in parts:
        print(f"{part.part:<10} {'runs at ' + part.address if part.running else 'does not run'}")


def _env(arguments: argparse.Namespace, progress: Progress) -> None:
    from devcluster import lifecycle

    variables = lifecycle.environment(_instance(arguments))
    if arguments.output == "json":
        print(json.dumps(variables, indent=1))
        return
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


def _clean_caches(arguments: argparse.Namespace, progress: Progress) -> None:
    import shutil

    from devcluster.paths import cache_folder

    with progress.step("cache", f"remove {cache_folder()}"):
        shutil.rmtree(cache_folder(), ignore_errors=True)


def _load_image(arguments: argparse.Namespace, progress: Progress) -> None:
    from devcluster import lifecycle

    for line in lifecycle.load_image(_instance(arguments), arguments.archive, progress):
        print(line)


def _set_post(arguments: argparse.Namespace, progress: Progress) -> None:
    from devcluster import lifecycle, wordpress

    old, new = arguments.replace
    site = lifecycle.found_wordpress(_instance(arguments))
    link = wordpress.set_post(site, arguments.slug, old, new)
    progress.say(wordpress.PART, f"changed {link}")


if __name__ == "__main__":
    sys.exit(main())
