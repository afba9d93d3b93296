"""The adapter merged into the 16-bit base, never into its 4-bit copy, which would round the weights twice."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.training.encoding import turn_end_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SHARD = "5GB"
_FROM_THE_BASE = ("*.json", "*.jinja", "tokenizer*", "*.model", "merges.txt", "vocab.txt", "LICENSE*")


def save_merged(
    base_folder: Path, adapter_folder: Path | None, tokenizer: PreTrainedTokenizerBase, target: Path
) -> None:
    """Write the merged model and its tokenizer as safetensors; with no adapter, the base model.

    Args:
        tokenizer: carries the chat template that was trained; it goes with the model.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for pattern in _FROM_THE_BASE:
        for path in base_folder.glob(pattern):
            if not path.name.endswith(".safetensors.index.json"):
                shutil.copyfile(path, target / path.name)
    model = _load(base_folder)
    if adapter_folder is not None:
        model = _merge(model, adapter_folder)
    ends = _turn_ends(tokenizer, model)
    if model.generation_config is not None and ends:
        model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.save_pretrained(target, max_shard_size=_SHARD)
    if _template_of(base_folder, tokenizer) != tokenizer.chat_template:
        tokenizer.save_pretrained(target)


def _load(folder: Path) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise BaseModelRejected(
            f"spec.baseModel.uri: transformers cannot load the model ({error})"
        ) from error
    return model


def _merge(model: PreTrainedModel, adapter_folder: Path) -> PreTrainedModel:
    from peft import PeftModel

    with warnings.catch_warnings():  # peft still asks for a property that transformers renames
        warnings.simplefilter("ignore", FutureWarning)
        adapted: Any = PeftModel.from_pretrained(model, adapter_folder)
    merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    return merged


def _turn_ends(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[int]:
    """Every token that ends an answer: what the base stops at, and what the template writes after a turn."""
    declared = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = [declared] if isinstance(declared, int) else list(declared or [])
    turn = str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], tokenize=False
        )
    )
    last_turn = list(tokenizer(turn, add_special_tokens=False)["input_ids"])
    trained = next((token for token in reversed(last_turn) if token in turn_end_ids(tokenizer)), None)
    return [*dict.fromkeys([*([] if trained is None else [trained]), *ends])]


def _template_of(base_folder: Path, tokenizer: PreTrainedTokenizerBase) -> object:
    """The template that the base's own files carry."""
    return type(tokenizer).from_pretrained(base_folder, local_files_only=True).chat_template
