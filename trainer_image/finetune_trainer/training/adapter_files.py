"""The files of a finished adapter, its facts and its page. Must not know where they are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from finetune_contract.artifact_layout import TRAINING_REPORT_FILE
from finetune_contract.run_spec import TrainingSpec
from finetune_trainer.artifact_files import Fact
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training import training_report
from finetune_trainer.training.loop import StepRecord, TrainingLoop
from finetune_trainer.training.preparation import TrainingFiles
from finetune_trainer.training.step_watch import last_evaluation_loss

TRAINING_LOG = "training_log.jsonl"


def write_adapter(folder: Path, loop: TrainingLoop, base_uri: str) -> None:
    """Weights, configuration and log, into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    loop.model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]
    _name_base(folder / "adapter_config.json", base_uri)
    _write_log(folder / TRAINING_LOG, loop.state.log)


def adapter_facts(context: StageContext, loop: TrainingLoop, files: TrainingFiles) -> dict[str, Fact]:
    """What the adapter's manifest says; of settings that give way when memory runs out, those that were used."""
    log, rows = loop.state.log, files.rows
    evaluation_loss = last_evaluation_loss(log)
    return {
        "runKey": context.run_key,
        "baseModel": files.base.uri,
        "baseModelDigest": files.base.digest,
        "datasetDigest": context.dataset_digest,
        "steps": loop.state.step,
        "finalLoss": round(log[-1].loss, 4),
        "evaluationLoss": None if evaluation_loss is None else round(evaluation_loss, 4),
        "tokens": loop.state.tokens,
        "seconds": round(loop.state.seconds, 1),
        "memoryBytes": max(record.memory_bytes for record in log),
        "rows": len(rows.rows),
        "rowsTooLong": len(rows.too_long),
        "rowsBrokenOff": len(rows.broken_off),
        "quantization": loop.training.quantization.type,
        "computeDtype": str(loop.dtype).removeprefix("torch."),
        "device": loop.device.type,
        "processes": loop.ranks.count,
        "seed": loop.training.seed,
        "microBatchSize": loop.training.micro_batch_size,
        "gradientCheckpointing": loop.training.gradient_checkpointing,
        "sequenceLength": loop.training.sequence_length,
    }


def write_report(
    folder: Path,
    run_name: str,
    training: TrainingSpec,
    log: Sequence[StepRecord],
    facts: Mapping[str, Fact],
    trials: Sequence[training_report.TrialRow] = (),
) -> None:
    """The page for people, beside the adapter; with the trials of a sweep."""
    page = training_report.render_report(run_name, log, training_report.describe(training, facts), trials)
    (folder / TRAINING_REPORT_FILE).write_text(page, encoding="utf-8")


def _name_base(adapter_config: Path, uri: str) -> None:
    """The adapter names the base by its address, not by the folder of this machine, and lists layers in order."""
    config = json.loads(adapter_config.read_text())
    config["base_model_name_or_path"] = uri
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    adapter_config.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    readme = adapter_config.with_name("README.md")
    readme.unlink(missing_ok=True)


def _write_log(path: Path, log: list[StepRecord]) -> None:
    path.write_text("".join(json.dumps(asdict(record)) + "\n" for record in log))
