"""A run whose train stage is done: base, dataset and adapter in the store. Nothing is trained for it."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from finetune_contract.artifact_layout import adapter_folder
from finetune_contract.artifacts import ArtifactKind
from finetune_trainer.artifact_files import publish_folder
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import base_model
from finetune_trainer.training.adapter import linear_layer_names
from tests.finetune_trainer.training.tiny_model import (
    DATASET_DIGEST,
    RUN_KEY,
    context_for,
    example,
    publish_dataset,
    spec_for,
)


def finished_training(folder: Path, base: Path) -> StageContext:
    """The context of the package stage; its store is a folder."""
    context = context_for(folder, spec_for(base))
    publish_dataset(context, [example(0), example(1)], [example(5)])
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(1)
    with warnings.catch_warnings():  # peft asks for a property that transformers renames
        warnings.simplefilter("ignore", FutureWarning)
        config = LoraConfig(
            r=4, lora_alpha=8, target_modules=linear_layer_names(model), task_type="CAUSAL_LM"
        )
        get_peft_model(model, config).save_pretrained(folder / "made-adapter", save_embedding_layers=False)
    facts = {
        "runKey": RUN_KEY,
        "baseModelDigest": base_model.resolve(context).digest,
        "datasetDigest": DATASET_DIGEST,
        "steps": 1,
        "finalLoss": 1.0,
        "quantization": "nf4",
        "seed": 42,
    }
    publish_folder(
        context.store, adapter_folder(RUN_KEY), folder / "made-adapter", ArtifactKind.ADAPTER, facts
    )
    return context
