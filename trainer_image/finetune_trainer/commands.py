"""The installed commands: how their processes begin and end. What they do stands in the modules that they call."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
"""One of them is there where a process can reach a GPU: NVIDIA's driver, Windows' for Linux, AMD's."""

READER_GONE = 128 + signal.SIGPIPE
"""The code of a process that ends because nobody reads what it prints, as a shell shows it of any other."""


def finetune_stage() -> NoReturn:
    """`finetune-stage`"""
    from finetune_trainer.__main__ import main

    run_process(main)


def finetune() -> NoReturn:
    """`finetune`"""
    from finetune_trainer.laptop import main

    run_process(main)


def run_process(main: Callable[[], None]) -> NoReturn:
    """Call `main`, which ends with SystemExit, and end the process.

    Python would take torch and transformers down object by object, for some seconds, before the process is gone. There
    is nothing in them that needs it: stages end what they start.
    """
    spare_compiler(os.environ)
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BrokenPipeError:  # the reader had enough, as `head` has
        code = READER_GONE
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    logging.shutdown()
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def spare_compiler(environment: MutableMapping[str, str]) -> None:
    """Without a GPU nothing is compiled, and the compiler, which bitsandbytes asks for, takes seconds to load."""
    if not any(path.exists() for path in GPU_DEVICES):
        environment.setdefault("TORCHDYNAMO_DISABLE", "1")
