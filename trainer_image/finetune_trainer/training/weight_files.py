"""Which files hold a model's weights. A folder may hold them twice; transformers reads one set, and so do we.

Must not know where the files come from. Knows no torch: the dataset stage has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from finetune_trainer.errors import BaseModelRejected
from finetune_trainer.training.base_model_files import FIELD

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def with_one_set_of_weights(
    place: str, names: Iterable[str], read_index: Callable[[], bytes | None]
) -> frozenset[str]:
    """Of these names all but weights, and indexes of weights, that transformers leaves alone.

    It reads WHOLE, or else what INDEX names: no copy in another precision, none of another program's
    (consolidated.safetensors), no shard that an earlier upload left behind.

    Args:
        read_index: asked for the content of INDEX when it decides.

    Raises:
        BaseModelRejected: the weights have other names, the index is none, or a file that it names is not there.
    """
    there = frozenset(names)
    others = frozenset(
        name for name in there if not name.endswith((".safetensors", ".safetensors.index.json"))
    )
    if WHOLE in there:
        return others | {WHOLE}
    if INDEX in there:
        return others | {INDEX} | _shards(place, read_index() or b"", there)
    raise BaseModelRejected(
        f"{FIELD}: {place} holds neither {WHOLE} nor {INDEX}, and transformers reads nothing else; "
        "upload the whole model folder, or save the model anew with save_pretrained"
    )


def model_files(folder: Path) -> list[Path]:
    """The files of a folder, with its weights once, in the order of their names."""
    names = (path.name for path in folder.iterdir() if path.is_file())
    kept = with_one_set_of_weights(str(folder), names, (folder / INDEX).read_bytes)
    return sorted(folder / name for name in kept)


def weight_files(folder: Path) -> list[Path]:
    """Those of them that hold the weights."""
    return [path for path in model_files(folder) if path.suffix == ".safetensors"]


def _shards(place: str, index: bytes, there: frozenset[str]) -> frozenset[str]:
    try:
        shards = frozenset(map(str, json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BaseModelRejected(
            f"{FIELD}: {place}: {INDEX} is no index of weights ({type(error).__name__}); upload it anew"
        ) from error
    missing = sorted(shards - there)
    if missing:
        raise BaseModelRejected(
            f"{FIELD}: {place}: {INDEX} names {missing[0]}, which is not there "
            f"({len(missing)} of {len(shards)} missing); upload the whole model folder"
        )
    return shards
