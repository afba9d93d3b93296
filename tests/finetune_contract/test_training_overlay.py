"""The training that an attempt runs with, after memory ran out before."""

from __future__ import annotations

import pytest

from finetune_contract.run_document import InvalidRunDocument
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_contract.stage_protocol import TrainingOverlay
from finetune_contract.training_overlay import with_overlay

SPEC = FineTuneRunSpec.model_validate(
    {
        "baseModel": {"uri": "hf://google/gemma-2-2b"},
        "dataset": {"sources": [{"name": "blog", "wordpress": {"url": "https://blog.example.org"}}]},
        "store": {"s3": {"bucket": "models"}},
    }
)


def test_an_overlay_changes_its_three_settings_and_nothing_else():
    overlay = TrainingOverlay(micro_batch_size=1, gradient_checkpointing=True, sequence_length=512)

    spec = with_overlay(SPEC, overlay.to_json())

    changed = {"micro_batch_size": 1, "gradient_checkpointing": True, "sequence_length": 512}
    assert spec.training == SPEC.training.model_copy(update=changed)
    assert spec.model_copy(update={"training": SPEC.training}) == SPEC


def test_without_an_overlay_the_spec_stays():
    assert with_overlay(SPEC, "") is SPEC


@pytest.mark.parametrize("text", ["{", '{"microBatchSize": 0}', '{"precision": 8}'])
def test_an_overlay_of_another_version_is_refused(text):
    with pytest.raises(InvalidRunDocument, match=r"FINETUNE_TRAINING_OVERLAY.*trainer image"):
        with_overlay(SPEC, text)
