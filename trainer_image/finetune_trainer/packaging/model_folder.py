"""The folder of a model: merged, converted, proven, described. Finished parts of an earlier attempt on this disk stay.

Must not know where the parts come from, or where the folder goes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_contract import VERSION
from finetune_contract.artifact_layout import GGUF_FILE, SAFETENSORS_FOLDER
from finetune_contract.artifacts import ArtifactKind, Example
from finetune_contract.prompt import INSTRUCTION, INSTRUCTION_WITHOUT_SOURCES, PROMPT_VERSION, REFUSAL
from finetune_contract.run_spec import FineTuneRunSpec, GgufType, PromptFormat
from finetune_trainer.artifact_files import Fact, describe_folder
from finetune_trainer.errors import Preempted
from finetune_trainer.packaging import gguf, quality
from finetune_trainer.packaging.llama_cpp import served
from finetune_trainer.packaging.merge import save_merged
from finetune_trainer.packaging.model_card import Facts, model_card
from finetune_trainer.packaging.provenance import PROVENANCE_FILE, Inputs, statement, to_bytes
from finetune_trainer.packaging.signature import SIGNATURE_FILE, sign_folder
from finetune_trainer.packaging.template_parity import check_parity
from finetune_trainer.run_log import Progress
from finetune_trainer.training.encoding import EncodedExample, encode_rows, load_tokenizer
from finetune_trainer.training.safetensors_file import read_places
from finetune_trainer.training.weight_files import weight_files
from finetune_trainer.workspace_errors import check_room

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

PROMPT_FILE = "prompt.json"
CARD_FILE = "README.md"
STEPS = 5
_SMALLEST_CONTEXT = 512
_SIZE = {GgufType.F16: 1.0, GgufType.Q8_0: 0.55, GgufType.Q4_0: 1.35, GgufType.Q4_K_M: 1.4}
"""Of a 16-bit model: the GGUF file, and the 16-bit one that some formats are made of."""


@dataclass(frozen=True)
class Tuning:
    """What makes a model a tuned one."""

    adapter_folder: Path
    spec: FineTuneRunSpec
    questions: Sequence[Example]
    """Kept back from training."""
    dataset_facts: Facts
    inputs: Inputs
    signing_key: Path | None = None


@dataclass(frozen=True)
class Recipe:
    """What is made, and of what."""

    name: str
    base_folder: Path
    gguf_type: GgufType
    prompt_format: PromptFormat
    licence: str = ""
    facts: dict[str, Fact] = field(default_factory=dict)
    tuning: Tuning | None = None

    def identity(self) -> str:
        """What decides the bytes of the merged and the converted files."""
        parts = [
            VERSION,
            self.gguf_type.value,
            self.prompt_format.value,
            str(self.facts.get("baseModelDigest")),
        ]
        if self.tuning is not None:
            parts.append(self.tuning.inputs.adapter_sha256)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def make_folder(
    recipe: Recipe,
    folder: Path,
    progress: Progress,
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Fact]:
    """Fill `folder`; the facts for its manifest.

    Raises:
        BaseModelRejected: the model cannot be merged, converted, or served as it was trained.
        LossRaised: it answers worse than before it was packaged.
        WorkspaceUnusable: there is no room.
        Preempted: told to stop; the next attempt goes on.
        OSError: the disk is full or read-only.
    """
    _begin(recipe, folder)
    merged, served_file = folder / SAFETENSORS_FOLDER, folder / GGUF_FILE
    tokenizer = load_tokenizer(recipe.base_folder, recipe.prompt_format)
    weights = _weight_count(recipe.base_folder)

    def step(number: int, words: str) -> Callable[[], None]:
        if stop_requested():
            raise Preempted(f"told to stop before {words}; the next attempt on this disk goes on from there")
        progress(number, STEPS, message=words)
        return lambda: progress(number, STEPS, message=words)

    if not merged.is_dir():
        tuned = recipe.tuning is not None
        step(0, "merging the adapter into the 16-bit model" if tuned else "copying the model")
        check_room(folder, int(2 * weights * (1 + _SIZE[recipe.gguf_type])))
        adapter = recipe.tuning.adapter_folder if recipe.tuning else None
        save_merged(recipe.base_folder, adapter, tokenizer, merged, stop_requested)
    if not served_file.is_file():
        heartbeat = step(1, f"converting to GGUF {recipe.gguf_type.value}")
        gguf.convert(merged, served_file, recipe.gguf_type, heartbeat)
    facts: dict[str, Fact] = {
        **recipe.facts,
        "trainerVersion": VERSION,
        "promptVersion": PROMPT_VERSION,
        "promptFormat": recipe.prompt_format.value,
        "gguf": recipe.gguf_type.value,
        **_prove(recipe, tokenizer, weights, merged, served_file, step),
    }
    _describe(recipe, folder, facts)
    return facts


def _begin(recipe: Recipe, folder: Path) -> None:
    """Keep what an earlier attempt finished of the same recipe, and nothing else."""
    note = folder.with_name(f"{folder.name}.recipe")
    identity = recipe.identity()
    if recipe.tuning is None or not note.is_file() or note.read_text() != identity:
        note.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.tuning is not None:
        note.write_text(identity)


def _weight_count(folder: Path) -> int:
    total = 0
    for shard in weight_files(folder):
        for place in read_places(shard).values():
            count = 1
            for size in place.shape:
                count *= size
            total += count
    return total


def _prove(
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    weights: int,
    merged: Path,
    served_file: Path,
    step: Callable[[int, str], Callable[[], None]],
) -> dict[str, Fact]:
    """Ask llama.cpp itself: the tokens of a prompt, and the loss of the answers."""
    rows: list[EncodedExample] = []
    questions: Sequence[Example] = ()
    if recipe.tuning is not None:
        questions = quality.questions_of(recipe.tuning.questions)
        limit = recipe.tuning.spec.training.sequence_length
        rows = quality.affordable_rows(encode_rows(tokenizer, questions, limit).rows, weights)
    step(2, "comparing prompts with the model server's")
    context = max([_SMALLEST_CONTEXT, *(len(row) + 8 for row in rows)])
    with served(served_file, context) as server:
        compared = check_parity(tokenizer, merged, server, (question.prompt for question in questions))
        facts: dict[str, Fact] = {"promptsCompared": compared}
        if recipe.tuning is None or not rows:
            return facts
        heartbeat = step(3, "measuring the loss of the trained, merged and served model")
        spec = recipe.tuning.spec
        losses = quality.measure(
            recipe.base_folder,
            recipe.tuning.adapter_folder,
            merged,
            server,
            rows,
            spec.training.quantization,
            heartbeat,
        )
    if losses is None:
        return facts
    quality.check_losses(losses, spec.packaging)
    return {**facts, **losses.facts()}


def _describe(recipe: Recipe, folder: Path, facts: dict[str, Fact]) -> None:
    prompt = {
        "promptVersion": PROMPT_VERSION,
        "promptFormat": recipe.prompt_format.value,
        "instruction": INSTRUCTION,
        "instructionWithoutSources": INSTRUCTION_WITHOUT_SOURCES,
        "refusal": REFUSAL,
    }
    (folder / PROMPT_FILE).write_text(json.dumps(prompt, indent=2, ensure_ascii=False) + "\n")
    tuning = recipe.tuning
    card = model_card(
        recipe.name,
        facts,
        recipe.licence,
        training=tuning.spec.training if tuning else None,
        dataset=tuning.dataset_facts if tuning else None,
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    for name in (PROVENANCE_FILE, SIGNATURE_FILE):
        (folder / name).unlink(missing_ok=True)
    if tuning is not None:
        files = describe_folder(folder, ArtifactKind.MODEL, {}).files
        (folder / PROVENANCE_FILE).write_bytes(to_bytes(statement(files, tuning.inputs)))
        if tuning.signing_key is not None:
            sign_folder(folder, tuning.signing_key)
