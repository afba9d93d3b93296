"""Where the weights of adapted layers lie in a base model's files. Only headers are read: it can be asked early too.

Must not know what an adapter changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.training.safetensors_file import DTYPES, TensorPlace, read_places
from finetune_trainer.training.weight_files import weight_files


def tensor_of_layer(layer: str, names: Collection[str]) -> str | None:
    """The tensor that holds a layer's weight, or None.

    A checkpoint may call the outer parts otherwise than the loaded model does (`h.0` for `transformer.h.0`): what
    counts is the name from the layer's number on. Where several tensors have that, as a decoder's and a vision
    tower's, it is the one that shares most of the parts before the number; None when two share as many.
    """
    exact = f"{layer}.weight"
    if exact in names:
        return exact
    parts = exact.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), 0)
    tail = ".".join(parts[max(0, number - 1) :])
    found = [name for name in names if name == tail or name.endswith(f".{tail}")]
    outer = set(parts[: max(0, number - 1)])
    shared = {name: len(outer.intersection(name.removesuffix(tail).split("."))) for name in found}
    best = [name for name in found if shared[name] == max(shared.values())]
    return best[0] if len(best) == 1 else None


def read_weights(folder: Path) -> dict[Path, dict[str, TensorPlace]]:
    """By file, all tensors of a model by name.

    Raises:
        BaseModelRejected: a file is not whole, or two hold the same tensor.
    """
    places: dict[Path, dict[str, TensorPlace]] = {}
    shard_of: dict[str, Path] = {}
    for shard in weight_files(folder):
        try:
            places[shard] = read_places(shard)
        except ValueError as error:
            raise BaseModelRejected(f"spec.baseModel.uri: {error}; fetch the model again") from error
        for name in places[shard]:
            other = shard_of.setdefault(name, shard)
            if other != shard:
                raise BaseModelRejected(
                    f"spec.baseModel.uri: {name} is in {other.name} and in {shard.name}, and programs take one or the "
                    "other; save the model anew with save_pretrained"
                )
    return places


def tensors_by_file(
    layers: Iterable[str], places: Mapping[Path, Mapping[str, TensorPlace]]
) -> dict[Path, dict[str, str]]:
    """For each file the tensors that these layers have there, each with its layer.

    Raises:
        BaseModelRejected: an adapter on one of them could not be merged into these files.
    """
    shard_of = {name: shard for shard, tensors in places.items() for name in tensors}
    changes: dict[Path, dict[str, str]] = {}
    for layer in layers:
        name = tensor_of_layer(layer, shard_of)
        if name is None:
            raise BaseModelRejected(
                f"spec.baseModel.uri: the files of the base model hold no weight of {layer}, or several that may be "
                "it, and the adapter changes that layer; take the model in the form in which transformers saves it"
            )
        shard = shard_of[name]
        dtype = places[shard][name].dtype
        if dtype not in DTYPES:
            raise BaseModelRejected(
                f"spec.baseModel.uri: {name} is held as {dtype}, and an adapter is merged into 16 bits or more; "
                "take the model's 16-bit form"
            )
        changes.setdefault(shard, {})[name] = layer
    return changes
