"""`python -m demo up|retrain|status|down|quickstart`: what the Makefile's demo targets call."""

from __future__ import annotations

import argparse
import signal
import sys

from rich.console import Console

from demo.errors import DemoError
from devcluster.errors import DevclusterError
from devcluster.progress import Progress


def main(argv: list[str] | None = None) -> int:
    """0, or 1 with the reason on stderr."""
    arguments = _parser().parse_args(argv)
    progress, console = Progress(), Console()
    try:
        if arguments.command == "quickstart":
            from demo.quickstart import quickstart

            return quickstart(progress, console, stay=not arguments.leave)
        from demo.parts import Setting
        from demo.story import Story

        story = Story(Setting.from_environment(), progress, console)
        return int(getattr(story, arguments.command)() or 0)
    except (DemoError, DevclusterError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="From WordPress posts to a live answer. KUBECONFIG, when set, names a cluster of your own"
        " (docs/demo.md); else a real single-node Kubernetes is started here, which needs root.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="everything, from nothing to answers side by side; resumable")
    commands.add_parser("retrain", help="change one post and watch a new run learn it")
    commands.add_parser("status", help="what runs and where to look")
    commands.add_parser("down", help="end everything that the demo started")
    quickstart = commands.add_parser(
        "quickstart", help="the same story without a cluster; ends in the chat page"
    )
    quickstart.add_argument(
        "--leave", action="store_true", help="end after the answers instead of staying up"
    )
    return parser


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal ends what was started, as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
