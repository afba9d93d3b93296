"""README.md in the form that model hubs read."""

from __future__ import annotations

from typing import Any

import yaml

from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.packaging.model_card import model_card

TUNED: dict[str, object] = {
    "baseModel": f"hf://HuggingFaceTB/SmolLM2-135M-Instruct@{'c' * 40}",
    "tuned": True,
    "datasetDigest": "d" * 64,
    "steps": 60,
    "finalLoss": 0.41,
    "lossQuestions": 8,
    "lossTrained": 0.512,
    "lossMerged": 0.509,
    "lossServed": 0.515,
    "empty": "",
}
DATASET: dict[str, object] = {
    "documents": 120,
    "sources": ["blog", "docs|internal"],
    "trainingExamples": 900,
    "evaluationExamples": 90,
    "snapshotSha256": "e" * 64,
}


def front_matter(card: str) -> dict[str, Any]:
    begin, front, rest = card.split("---\n", 2)
    assert begin == ""
    assert rest.startswith("\n# ")
    loaded: dict[str, Any] = yaml.safe_load(front)
    return loaded


def test_the_front_matter_names_base_licence_and_kind():
    card = model_card("blog", TUNED, "apache-2.0", training=TrainingSpec(), dataset=DATASET)

    assert front_matter(card) == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "question-answering", "lora", "qlora"],
    }


def test_data_training_and_evaluation_are_told():
    card = model_card("blog", TUNED, "apache-2.0", training=TrainingSpec(), dataset=DATASET)

    for row in (
        "| documents | 120 |",
        "| sources | blog, docs\\|internal |",
        f"| sha256 of the documents | {'e' * 64} |",
        "| method | QLoRA: base in nf4 with double quantisation, LoRA on all linear layers |",
        "| steps | 60 |",
        "| served model: `model.gguf` | 0.515 |",
    ):
        assert row in card
    assert "on 8 questions that training never saw" in card
    assert "| empty |" not in card
    assert card.rstrip().endswith(f"@{'c' * 40}: apache-2.0.")


def test_an_untuned_model_has_neither_data_nor_training():
    card = model_card("base", {"baseModel": "folder", "tuned": False}, "")

    assert "license" not in front_matter(card)
    assert "## Data" not in card
    assert "## Training" not in card
    assert "## Evaluation" not in card
    assert "see there" in card


def test_of_a_sweep_the_card_says_which_trial_this_is_and_what_the_others_came_to():
    swept = {
        **TUNED,
        "trial": 2,
        "trials": 3,
        "trialSettings": "learningRate 0.0001, rank 16",
        "trialLosses": [
            "learningRate 0.0001, rank 8: 1.2500",
            "learningRate 0.0001, rank 16: 1.1250",
            "learningRate 0.01, rank 8: diverged",
        ],
    }

    card = model_card("blog", swept, "apache-2.0", training=TrainingSpec(), dataset=DATASET)

    assert "Trial 2 of 3 is this model" in card
    for row in (
        "| 1: learningRate 0.0001, rank 8 | 1.2500 |",
        "| 2: learningRate 0.0001, rank 16 | 1.1250 |",
        "| 3: learningRate 0.01, rank 8 | diverged |",
    ):
        assert row in card
    assert "trialLosses" not in card
    assert "## Trials" not in model_card("blog", TUNED, "", training=TrainingSpec(), dataset=DATASET)
