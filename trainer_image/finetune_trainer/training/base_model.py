"""The base model: which one exactly, and how it gets into the work folder.

`resolve` runs in every stage and is cheap; `fetch` brings the files. Knows no torch: the dataset stage has none.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from finetune_trainer.errors import BaseModelRejected, Preempted
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import hugging_face, model_folders
from finetune_trainer.training.base_model_files import (
    FIELD,
    BaseModelFile,
    ResolvedBaseModel,
    check_file,
)
from finetune_trainer.workspace_errors import SCRATCH, check_room, workspace_errors

__all__ = ["FIELD", "BaseModelFile", "ResolvedBaseModel", "check_can_be_tuned", "fetch", "resolve"]

logger = logging.getLogger(__name__)

_DONE = ".fetched"
_MIB = 2**20


def resolve(context: StageContext) -> ResolvedBaseModel:
    """Find the model of the spec; a Hugging Face model is copied into the store on the first call.

    Raises:
        BaseModelRejected: there is none, it is gated, its files are not safe to load, or a part of the weights is
            missing.
        SourceUnavailable: Hugging Face does not answer.
        WorkspaceUnusable: the disk is full or read-only.
        Preempted: told to stop while it was downloaded.
    """
    uri = context.spec.base_model.uri
    if uri.startswith("s3://"):
        return model_folders.in_bucket(uri, context.spec.store.s3)
    if uri.startswith("hf://"):
        with workspace_errors(context.work_folder):
            return hugging_face.resolve(context, uri)
    return model_folders.on_this_machine(uri)


def check_can_be_tuned(context: StageContext, base: ResolvedBaseModel) -> None:
    """Refuse a model that is published quantised, from its config.json alone, before a GPU is asked for.

    Raises:
        BaseModelRejected: its weights are held in 8 bits or less, and no adapter can be merged into them.
    """
    path = context.work_folder / "base-model-config.json"
    with workspace_errors(context.work_folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        base.download("config.json", path)
    try:
        quantization = json.loads(path.read_text(encoding="utf-8")).get("quantization_config")
    except (ValueError, AttributeError) as error:
        raise BaseModelRejected(
            f"{FIELD}: {base.uri}: config.json is no JSON object; upload it anew"
        ) from error
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise BaseModelRejected(
            f"{FIELD}: {base.uri} holds its weights quantised ({method or 'quantization_config in config.json'}), and "
            "an adapter is merged into 16 bits or more; name the model's 16-bit form"
        )


def fetch(context: StageContext, base: ResolvedBaseModel | None = None, scratch: str = SCRATCH) -> Path:
    """The model's files in the work folder, checked; quick when an earlier attempt left them there.

    Args:
        scratch: field of the spec that sizes the work folder of this stage.

    Raises:
        WorkspaceUnusable: the disk is full or read-only.
        StoreRejected: a file is not what was announced.
        Preempted: told to stop between two files.
    """
    base = base or resolve(context)
    with workspace_errors(context.work_folder, scratch):
        return _fetch(context, base, scratch)


def _fetch(context: StageContext, base: ResolvedBaseModel, scratch: str) -> Path:
    folder = context.work_folder / "base-model"
    done = folder / _DONE
    if done.is_file() and done.read_text() == base.digest:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    check_room(folder, base.size_bytes, "the base model", scratch)
    total, fetched = max(1, base.size_bytes // _MIB), 0
    for file in base.files:
        if context.stop_requested():
            raise Preempted("told to stop while the base model was fetched; the next attempt fetches it")
        context.progress(fetched // _MIB, total, message="fetching the base model (MiB)")
        path = folder / file.path
        base.download(file.path, path)
        check_file(base.uri, file, path)
        fetched += file.size
    context.progress(total, total, message="fetching the base model (MiB)")
    done.write_text(base.digest)
    logger.info("base model fetched: uri=%s files=%d bytes=%d", base.uri, len(base.files), base.size_bytes)
    return folder
