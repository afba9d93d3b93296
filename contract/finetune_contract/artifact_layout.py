"""Where each artifact lies under the store's prefix. Pure strings; must not know which store."""

from __future__ import annotations

TRAIN_FILE = "train.jsonl"
EVALUATION_FILE = "evaluation.jsonl"
TRANSFER_FILE = "transfer.jsonl"
DOCUMENTS_FILE = "documents.jsonl"
DROPPED_FILE = "dropped.jsonl"
NOTED_FILE = "noted.jsonl"
COUNTS_FILE = "counts.json"
DATASET_REPORT_FILE = "dataset.html"
TRAINING_REPORT_FILE = "training.html"
REPORT_FILE = "report.html"
REVIEWED_FILE = "reviewed.jsonl"
VERDICT_FILE = "verdict.json"
ANSWERS_FILE = "answers.jsonl"
GOLDEN_FILE = "golden.jsonl"
GGUF_FILE = "model.gguf"
SAFETENSORS_FOLDER = "safetensors"


def dataset_folder(dataset_digest: str) -> str:
    """Train and evaluation rows, the documents and the list of what was dropped."""
    return f"datasets/{dataset_digest}"


def harvest_file(identity_digest: str) -> str:
    """What a source read last, before cleaning, so that the next run asks for changes only."""
    return f"harvests/{identity_digest}/rows.jsonl.gz"


def generated_folder(way_digest: str) -> str:
    """What a language model wrote about sections, by model and wording."""
    return f"generated/{way_digest}"


def base_model_folder(owner: str, name: str, commit: str) -> str:
    """Copy of a Hugging Face model at a commit, for stages that may not reach the internet."""
    return f"base-models/{owner}--{name}/{commit}"


def run_folder(run_key: str) -> str:
    """Everything that was made under one run key."""
    return f"runs/{run_key}"


def checkpoint_folder(run_key: str, step: int) -> str:
    """Adapter, optimizer, scheduler, random state and data position after a step."""
    return f"{run_folder(run_key)}/checkpoints/step-{step:08d}"


def checkpoints_folder(run_key: str) -> str:
    """All checkpoints of a run."""
    return f"{run_folder(run_key)}/checkpoints"


def trial_key(run_key: str, number: int) -> str:
    """The run key of a sweep's trial, from 1: its checkpoints and its adapter lie in the run's folder."""
    return f"{run_key}/trial-{number}"


def trials_prefix(run_key: str) -> str:
    """What the names of all files of all trials begin with."""
    return f"{run_folder(run_key)}/trial-"


def adapter_folder(run_key: str) -> str:
    """The trained LoRA adapter."""
    return f"{run_folder(run_key)}/adapter"


def model_folder(run_key: str) -> str:
    """The merged model: safetensors and GGUF."""
    return f"{run_folder(run_key)}/model"


def evaluation_folder(run_key: str) -> str:
    """Verdict, report and every answer."""
    return f"{run_folder(run_key)}/evaluation"
