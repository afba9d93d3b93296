"""The adapter merged into the 16-bit base, never into its 4-bit copy, which would round the weights twice.

One weight is in memory at a time: the base's files are copied and changed where a layer has an adapter. Names, shards,
number formats and tied embeddings stay as the base has them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finetune_contract.artifacts import ChatMessage
from finetune_trainer.errors import BaseModelRejected, Diverged, Preempted
from finetune_trainer.packaging.lora_weights import LoraWeights, read_lora
from finetune_trainer.training.adapted_tensors import read_weights, tensors_by_file
from finetune_trainer.training.encoding import prompt_token_ids, turn_end_ids
from finetune_trainer.training.safetensors_file import (
    DTYPES,
    TensorPlace,
    open_to_change,
    read_tensor,
    write_tensor,
)
from finetune_trainer.training.weight_files import model_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FROM_THE_BASE = ("*.json", "*.jinja", "tokenizer*", "*.model", "merges.txt", "vocab.txt", "LICENSE*")
_GENERATION_FILE = "generation_config.json"


def save_merged(
    base_folder: Path,
    adapter_folder: Path | None,
    tokenizer: PreTrainedTokenizerBase,
    target: Path,
    stop_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Write the merged model and its tokenizer as safetensors; with no adapter, the base model. There when whole.

    Args:
        tokenizer: carries the chat template that was trained; it goes with the model.
        stop_requested: asked before each file.

    Raises:
        BaseModelRejected: a layer of the adapter is not in the base's files, or there twice, or has another shape or
            number format.
        Diverged: a merged weight is no number.
        Preempted: told to stop.
    """
    shutil.rmtree(target, ignore_errors=True)
    whole, target = target, target.with_name(f"{target.name}.partial")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in model_files(base_folder):
        if any(fnmatch(path.name, pattern) for pattern in _FROM_THE_BASE):
            shutil.copyfile(path, target / path.name)
    lora = None if adapter_folder is None else read_lora(adapter_folder)
    places = read_weights(base_folder)
    changes = {} if lora is None else tensors_by_file(lora.layers, places)
    for shard in places:
        if stop_requested():
            raise Preempted("told to stop while the model was merged; the next attempt merges it anew")
        shutil.copyfile(shard, target / shard.name)
        if lora is not None and shard in changes:
            _change(target / shard.name, lora, changes[shard], places[shard])
    _name_turn_ends(base_folder, tokenizer, target)
    if _template_of(base_folder, tokenizer) != tokenizer.chat_template:
        tokenizer.save_pretrained(target)
    if not _begins_with_bos(tokenizer):
        _add_no_bos(target / "tokenizer_config.json")
    target.replace(whole)


def _change(
    path: Path, lora: LoraWeights, layers: Mapping[str, str], places: Mapping[str, TensorPlace]
) -> None:
    with open_to_change(path) as file:
        for name, layer in layers.items():
            change = lora.change_of(layer)
            if tuple(change.shape) != places[name].shape:
                raise BaseModelRejected(
                    f"spec.baseModel.uri: {name} has the shape {places[name].shape}, the adapter of {layer} has "
                    f"{tuple(change.shape)}; it was trained on another model"
                )
            merged = read_tensor(file, places[name]).float().add_(change)
            del change
            merged = merged.to(DTYPES[places[name].dtype])
            if not bool(torch.isfinite(merged).all()):
                raise Diverged(
                    f"{layer}: a merged weight is no number in {places[name].dtype}; "
                    "lower spec.training.learningRate or spec.training.lora.alpha"
                )
            write_tensor(file, places[name], merged)


def _name_turn_ends(base_folder: Path, tokenizer: PreTrainedTokenizerBase, target: Path) -> None:
    """Every token that ends an answer: what the template writes after a turn, and what the base stops at."""
    path = target / _GENERATION_FILE
    config = json.loads((base_folder / "config.json").read_text(encoding="utf-8"))
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not path.is_file():
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        settings = {"_from_model_config": True, **{n: config[n] for n in names if config.get(n) is not None}}
    declared = settings.get("eos_token_id")
    ends = [declared] if isinstance(declared, int) else list(declared or [])
    turn = str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], tokenize=False
        )
    )
    last_turn = list(tokenizer(turn, add_special_tokens=False)["input_ids"])
    trained = next((token for token in reversed(last_turn) if token in turn_end_ids(tokenizer)), None)
    ends = [*dict.fromkeys([*([] if trained is None else [trained]), *ends])]
    if ends:
        settings["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    prompt = prompt_token_ids(tokenizer, [ChatMessage(role="user", content="q")])
    return tokenizer.bos_token_id is None or prompt[:1] == [tokenizer.bos_token_id]


def _add_no_bos(path: Path) -> None:
    """A server adds the token that begins a text unless it is told otherwise; a template without it was trained so."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("add_bos_token") is not False:
        config["add_bos_token"] = False
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _template_of(base_folder: Path, tokenizer: PreTrainedTokenizerBase) -> object:
    """The template that the base's own files carry."""
    return type(tokenizer).from_pretrained(base_folder, local_files_only=True).chat_template
