"""Calls other programs and turns their failure into an error that a reader can act on."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster.errors import CommandFailed


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text_input: str | None = None,
    timeout_seconds: float = 600,
) -> str:
    """Runs a program to its end and returns what it printed on stdout.

    Raises:
        CommandFailed: it is not installed, ended with an error, or took too long.
    """
    name = " ".join(str(part) for part in argv[:4])
    try:
        done = subprocess.run(
            [str(part) for part in argv],
            env=dict(env) if env is not None else None,
            cwd=cwd,
            input=text_input,
            stdin=subprocess.DEVNULL if text_input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
        )
    except FileNotFoundError as error:
        raise CommandFailed(f"`{argv[0]}` is not installed or not in PATH") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"`{name}` did not end within {timeout_seconds:.0f} s") from error
    if done.returncode != 0:
        raise CommandFailed(
            f"`{name}` ended with status {done.returncode}:\n{last_lines(done.stderr or done.stdout)}"
        )
    return done.stdout


def last_lines(text: str, count: int = 15) -> str:
    """The end of a log, indented so that it stands apart from the message around it."""
    return "\n".join("    " + line for line in text.strip().splitlines()[-count:])
