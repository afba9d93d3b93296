"""Finished work under a run key: then nothing is trained again."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from finetune_contract.artifact_layout import VERDICT_FILE, evaluation_folder, model_folder
from finetune_contract.stage_protocol import EvaluationFacts, ModelFacts
from finetune_trainer.artifact_files import read_manifest, read_manifest_and_digest
from finetune_trainer.stored_model import model_facts
from finetune_trainer.stores.store import Store

logger = logging.getLogger(__name__)


def find_finished(store: Store, key: str) -> tuple[ModelFacts | None, EvaluationFacts | None]:
    """The whole model and verdict that lie under a run key."""
    model = read_manifest_and_digest(store, model_folder(key))
    if model is None or read_manifest(store, evaluation_folder(key)) is None:
        return None, None
    verdict = store.read(f"{evaluation_folder(key)}/{VERDICT_FILE}")
    try:
        evaluation = EvaluationFacts.model_validate_json(verdict or b"")
    except ValidationError:
        logger.warning("the verdict of an earlier run cannot be read and is made anew: run_key=%s", key)
        return None, None
    return model_facts(store, model_folder(key), *model), evaluation
