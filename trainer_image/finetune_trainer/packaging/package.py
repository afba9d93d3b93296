"""The package stage: merged safetensors, GGUF, prompt and model card in one folder, the manifest last."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from finetune_contract import VERSION
from finetune_contract.artifact_layout import GGUF_FILE, SAFETENSORS_FOLDER, adapter_folder, model_folder
from finetune_contract.artifacts import ArtifactKind, Manifest
from finetune_contract.prompt import INSTRUCTION, INSTRUCTION_WITHOUT_SOURCES, PROMPT_VERSION, REFUSAL
from finetune_contract.run_spec import GgufType, PromptFormat
from finetune_contract.stage_protocol import ModelFacts, Stage, StageReport
from finetune_trainer.artifact_files import Fact, fetch_folder, publish_folder, read_manifest
from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.packaging import gguf
from finetune_trainer.packaging.merge import save_merged
from finetune_trainer.packaging.model_card import model_card
from finetune_trainer.packaging.template_parity import check_parity
from finetune_trainer.run_log import Progress
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.store import Store
from finetune_trainer.training import base_model
from finetune_trainer.training.encoding import load_tokenizer

logger = logging.getLogger(__name__)

PROMPT_FILE = "prompt.json"
CARD_FILE = "README.md"
_STEPS = 4


def package(context: StageContext) -> StageReport:
    """Make the model folder of a run, or find that it is there already."""
    key = model_folder(context.run_key)
    manifest = read_manifest(context.store, key)
    if manifest is None:
        manifest = _package_run(context, key)
    else:
        logger.info("the model is there already: uri=%s", context.store.uri(key))
    facts = ModelFacts(
        uri=context.store.uri(key), manifest_sha256=manifest.sha256(), size_bytes=manifest.size_bytes
    )
    return StageReport(
        stage=Stage.PACKAGE, message=f"{manifest.size_bytes / 2**20:.0f} MiB at {facts.uri}", model=facts
    )


def package_base(
    base_folder: Path,
    store: Store,
    key: str,
    *,
    name: str = "base",
    uri: str = "",
    work_folder: Path | None = None,
    gguf_type: GgufType = GgufType.Q8_0,
    prompt_format: PromptFormat = PromptFormat.CHAT,
    progress: Progress | None = None,
) -> Manifest:
    """Publish an untuned model in the shape of a tuned one, so that a site can be served before its first run."""
    manifest = read_manifest(store, key)
    if manifest is not None:
        return manifest
    facts: dict[str, Fact] = {"baseModel": uri or base_folder.name, "tuned": False}
    return _make_folder(
        store=store,
        key=key,
        name=name,
        base_folder=base_folder,
        adapter=None,
        folder=(work_folder or base_folder.parent) / f"{base_folder.name}-packaged",
        gguf_type=gguf_type,
        prompt_format=prompt_format,
        licence="",
        facts=facts,
        progress=progress or _silent,
    )


def _package_run(context: StageContext, key: str) -> Manifest:
    adapter = context.work_folder / "adapter"
    trained = fetch_folder(context.store, adapter_folder(context.run_key), adapter)
    base = base_model.resolve(context)
    if base.digest != trained.facts.get("baseModelDigest"):
        raise BaseModelRejected(
            f"spec.baseModel.uri: {base.uri} is no longer the model that the adapter was trained on; "
            "put the old files back, or start a new run"
        )
    names = ("baseModelDigest", "datasetDigest", "steps", "finalLoss", "quantization", "seed")
    return _make_folder(
        store=context.store,
        key=key,
        name=context.run_name,
        base_folder=base_model.fetch(context, base),
        adapter=adapter,
        folder=context.work_folder / "model",
        gguf_type=context.spec.packaging.gguf,
        prompt_format=context.spec.dataset.prompt_format,
        licence=base.licence,
        facts={
            "baseModel": base.uri,
            "tuned": True,
            "runKey": context.run_key,
            **{name: trained.facts.get(name) for name in names},
        },
        progress=context.progress,
    )


def _make_folder(
    *,
    store: Store,
    key: str,
    name: str,
    base_folder: Path,
    adapter: Path | None,
    folder: Path,
    gguf_type: GgufType,
    prompt_format: PromptFormat,
    licence: str,
    facts: Mapping[str, Fact],
    progress: Progress,
) -> Manifest:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = load_tokenizer(base_folder, prompt_format)
    progress(
        0, _STEPS, message="merging the adapter into the 16-bit model" if adapter else "copying the model"
    )
    save_merged(base_folder, adapter, tokenizer, folder / SAFETENSORS_FOLDER)
    words = f"converting to GGUF {gguf_type.value}"
    progress(1, _STEPS, message=words)
    gguf.convert(
        folder / SAFETENSORS_FOLDER, folder / GGUF_FILE, gguf_type, lambda: progress(1, _STEPS, message=words)
    )
    progress(2, _STEPS, message="comparing the chat templates")
    check_parity(tokenizer, folder / SAFETENSORS_FOLDER, gguf.chat_template_of(folder / GGUF_FILE))
    all_facts: dict[str, Fact] = {
        **facts,
        "trainerVersion": VERSION,
        "promptVersion": PROMPT_VERSION,
        "promptFormat": prompt_format.value,
        "gguf": gguf_type.value,
    }
    prompt = {
        "promptVersion": PROMPT_VERSION,
        "promptFormat": prompt_format.value,
        "instruction": INSTRUCTION,
        "instructionWithoutSources": INSTRUCTION_WITHOUT_SOURCES,
        "refusal": REFUSAL,
    }
    (folder / PROMPT_FILE).write_text(json.dumps(prompt, indent=2, ensure_ascii=False) + "\n")
    (folder / CARD_FILE).write_text(model_card(name, all_facts, licence))
    progress(3, _STEPS, message="storing the model")
    manifest = publish_folder(store, key, folder, ArtifactKind.MODEL, all_facts, serving={GGUF_FILE})
    progress(_STEPS, _STEPS, message="stored")
    return manifest


def _silent(*_: object, **__: object) -> None:
    return None
