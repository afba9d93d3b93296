"""The package stage: merged safetensors, GGUF, prompt, model card and provenance in one folder, the manifest last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from finetune_contract.artifact_layout import (
    EVALUATION_FILE,
    GGUF_FILE,
    adapter_folder,
    dataset_folder,
    model_folder,
)
from finetune_contract.artifacts import ArtifactKind, Example, Manifest
from finetune_contract.run_spec import GgufType, PromptFormat
from finetune_contract.stage_protocol import ENV_TRAINER_IMAGE, Stage, StageReport, TrainingOverlay
from finetune_contract.sweep_trials import as_trained
from finetune_contract.training_overlay import with_overlay
from finetune_trainer.artifact_files import (
    fetch_folder,
    publish_folder,
    read_manifest,
    read_manifest_and_digest,
)
from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.packaging import gguf
from finetune_trainer.packaging.model_folder import STEPS, Recipe, Tuning, make_folder
from finetune_trainer.packaging.provenance import Inputs
from finetune_trainer.packaging.signature import signing_key
from finetune_trainer.run_log import Progress
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stored_model import model_facts
from finetune_trainer.stores.store import Store
from finetune_trainer.training import base_model
from finetune_trainer.workspace_errors import workspace_errors

logger = logging.getLogger(__name__)


def package(context: StageContext) -> StageReport:
    """Make the model folder of a run, or find that it is there already."""
    key = model_folder(context.run_key)
    manifest, digest = read_manifest_and_digest(context.store, key) or (None, "")
    if manifest is None:
        gguf.check_can_make(context.spec.packaging.gguf)
        signing_with = signing_key(context.environment)
        with workspace_errors(context.work_folder):
            manifest = _package_run(context, key, signing_with)
        digest = manifest.sha256()
    else:
        logger.info("the model is there already: uri=%s", context.store.uri(key))
    facts = model_facts(context.store, key, manifest, digest)
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
    gguf.check_can_make(gguf_type)
    recipe = Recipe(
        name=name,
        base_folder=base_folder,
        gguf_type=gguf_type,
        prompt_format=prompt_format,
        facts={"baseModel": uri or base_folder.name, "tuned": False},
    )
    folder = (work_folder or base_folder.parent) / f"{base_folder.name}-packaged"
    with workspace_errors(folder):
        return _make_and_publish(recipe, folder, store, key, progress or _silent)


def _package_run(context: StageContext, key: str, signing_with: Path | None) -> Manifest:
    adapter = context.work_folder / "adapter"
    adapter_key = adapter_folder(context.run_key)
    trained = fetch_folder(context.store, adapter_key, adapter)
    base = base_model.resolve(context)
    if base.digest != trained.facts.get("baseModelDigest"):
        raise BaseModelRejected(
            f"spec.baseModel.uri: {base.uri} is no longer the model that the adapter was trained on; "
            "put the old files back, or start a new run"
        )
    dataset_digest = str(trained.facts.get("datasetDigest") or context.dataset_digest)
    dataset_key = dataset_folder(dataset_digest)
    dataset = context.work_folder / "dataset"
    stored = fetch_folder(context.store, dataset_key, dataset, only_below=EVALUATION_FILE)
    names = ("baseModelDigest", "datasetDigest", "steps", "finalLoss", "quantization", "seed")
    trial, of_a_sweep = trained.facts.get("trial"), ("trial", "trials", "trialSettings", "trialLosses")
    used = _given_way(trained.facts)
    inputs = Inputs(
        run_name=context.run_name,
        run_key=context.run_key,
        spec=context.spec,
        base_uri=base.uri,
        base_digest=base.digest,
        dataset_uri=context.store.uri(dataset_key),
        dataset_digest=dataset_digest,
        snapshot_sha256=str(stored.facts.get("snapshotSha256") or ""),
        adapter_uri=context.store.uri(adapter_key),
        adapter_sha256=trained.sha256(),
        image=context.spec.trainer_image or context.environment.get(ENV_TRAINER_IMAGE, ""),
        used={} if used is None else used.to_wire(),
    )
    recipe = Recipe(
        name=context.run_name,
        base_folder=base_model.fetch(context, base),
        gguf_type=context.spec.packaging.gguf,
        prompt_format=context.spec.dataset.prompt_format,
        licence=base.licence,
        facts={
            "baseModel": base.uri,
            "tuned": True,
            "runKey": context.run_key,
            **{name: trained.facts.get(name) for name in names},
            **({} if trial is None else {name: trained.facts.get(name) for name in of_a_sweep}),
        },
        tuning=Tuning(
            adapter_folder=adapter,
            spec=with_overlay(
                as_trained(context.spec, None if trial is None else int(str(trial))),
                "" if used is None else used.to_json(),
            ),
            questions=_questions(dataset / EVALUATION_FILE),
            dataset_facts=stored.facts,
            inputs=inputs,
            signing_key=signing_with,
        ),
    )
    folder = context.work_folder / "model"
    return _make_and_publish(recipe, folder, context.store, key, context.progress, context.stop_requested)


def _given_way(facts: Mapping[str, object]) -> TrainingOverlay | None:
    """The settings that a training was left with after memory ran out; None for an adapter that does not tell."""
    told = {
        field.alias or name: facts.get(field.alias or name)
        for name, field in TrainingOverlay.model_fields.items()
    }
    return None if None in told.values() else TrainingOverlay.model_validate(told)


def _questions(path: Path) -> list[Example]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [Example.model_validate_json(line) for line in lines]


def _make_and_publish(
    recipe: Recipe,
    folder: Path,
    store: Store,
    key: str,
    progress: Progress,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Manifest:
    facts = make_folder(recipe, folder, progress, stop_requested)
    progress(STEPS - 1, STEPS, message="storing the model")
    manifest = publish_folder(store, key, folder, ArtifactKind.MODEL, facts, serving={GGUF_FILE}, resume=True)
    progress(STEPS, STEPS, message="stored")
    return manifest


def _silent(*_: object, **__: object) -> None:
    return None
