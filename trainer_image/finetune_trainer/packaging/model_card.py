"""README.md of a packaged model, in the form of Hugging Face's model cards. Pure text."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

from finetune_contract.prompt import user_message
from finetune_contract.run_spec import TrainingSpec
from finetune_contract.sections import Passage

_EXAMPLE = user_message("Your question?", [Passage("Title of a post", "Heading", "Text of the section.", "")])
_REPOSITORY = re.compile(r"^hf://([^@]+)")
_LOSSES = {
    "lossTrained": "trained model: 4-bit base and adapter",
    "lossMerged": "merged model: `safetensors/`",
    "lossServed": "served model: `model.gguf`",
}
_TRIALS = "trialLosses"
"""The fact that has a table of its own."""

Facts = Mapping[str, object]


def model_card(
    name: str,
    facts: Facts,
    licence: str,
    *,
    training: TrainingSpec | None = None,
    dataset: Facts | None = None,
) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        facts: those of the model's manifest.
        licence: short name of the base model's; empty when it is not known.
        training: settings; None for an untuned model.
        dataset: facts of the dataset's manifest; None for an untuned model.
    """
    return (
        "\n\n".join(
            [
                f"---\n{_front_matter(facts, licence)}---",
                f"# {name}",
                "A model that answers from the pages of one site. It is asked with up to two passages of it and the\n"
                "question, cites the passages by number, and says so when they do not hold the answer.",
                *([] if dataset is None else ["## Data", _table(_data_rows(dataset, facts))]),
                *([] if training is None else ["## Training", _table(_training_rows(training, facts))]),
                *_trials(facts),
                *_evaluation(facts),
                "## Facts",
                _table(
                    [
                        (key, value)
                        for key, value in sorted(facts.items())
                        if key != _TRIALS and value not in ("", None)
                    ]
                ),
                "## Use",
                "`model.gguf` is for llama.cpp, `safetensors/` for transformers; both carry the chat template.\n"
                "`manifest.json` has the sha256 of every file, `provenance.json` tells what they were made of.\n"
                "A user turn looks so:",
                f"```\n{_EXAMPLE}\n```",
                "## Licence",
                f"That of the base model, {facts['baseModel']}"
                + (f": {licence}." if licence else "; see there."),
            ]
        )
        + "\n"
    )


def _front_matter(facts: Facts, licence: str) -> str:
    base = str(facts["baseModel"])
    match = _REPOSITORY.match(base)
    front: dict[str, object] = {
        "base_model": match[1] if match else base,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "question-answering", *(["lora", "qlora"] if facts.get("tuned") else [])],
    }
    if facts.get("tuned"):
        front["base_model_relation"] = "finetune"
    if licence:
        front["license"] = licence
    return yaml.safe_dump(front, sort_keys=True, allow_unicode=True)


def _data_rows(dataset: Facts, facts: Facts) -> list[tuple[str, object]]:
    names = {
        "documents": "documents",
        "sources": "sources",
        "trainingExamples": "training examples",
        "evaluationExamples": "evaluation examples",
        "transferExamples": "transfer examples",
        "dropped": "documents left out",
        "snapshotSha256": "sha256 of the documents",
    }
    rows = [(words, dataset[name]) for name, words in names.items() if name in dataset]
    return [*rows, ("sha256 of the dataset", facts.get("datasetDigest"))]


def _training_rows(training: TrainingSpec, facts: Facts) -> list[tuple[str, object]]:
    lora, quantization = training.lora, training.quantization
    twice = " with double quantisation" if quantization.double_quantization else ""
    return [
        ("method", f"QLoRA: base in {quantization.type}{twice}, LoRA on all linear layers"),
        ("LoRA", f"rank {lora.rank}, alpha {lora.alpha}, dropout {lora.dropout:g}"),
        ("steps", facts.get("steps")),
        ("examples a step", training.effective_batch_size),
        ("tokens of an example at most", training.sequence_length),
        ("learning rate", f"{training.learning_rate:g}"),
        ("seed", training.seed),
        ("loss at the end", facts.get("finalLoss")),
    ]


def _trials(facts: Facts) -> list[str]:
    """What a sweep tried."""
    told = facts.get(_TRIALS)
    if not isinstance(told, list):
        return []
    rows = [str(trial).rpartition(": ") for trial in told]
    return [
        "## Trials",
        f"Trial {facts['trial']} of {facts['trials']} is this model: it has the lowest evaluation loss at its end. "
        "The others are not kept.",
        _table([(f"{number}: {settings}", loss) for number, (settings, _, loss) in enumerate(rows, start=1)]),
    ]


def _evaluation(facts: Facts) -> list[str]:
    rows = [(words, facts[name]) for name, words in _LOSSES.items() if name in facts]
    if not rows:
        return []
    return [
        "## Evaluation",
        f"Mean loss per answer token on {facts.get('lossQuestions')} questions that training never saw. "
        "The run's `evaluation/report.html` has the answers.",
        _table(rows),
    ]


def _table(rows: list[tuple[str, object]]) -> str:
    def cell(value: object) -> str:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return text.replace("|", "\\|").replace("\n", " ")

    lines = [f"| {cell(key)} | {cell(value)} |" for key, value in rows if value is not None]
    return "\n".join(["| | |", "|---|---|", *lines])
