"""A process of a training whose base does not fit it whole: `python -m ... FOLDER BASE SETTINGS`.

Alone it trains the same with room enough.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit

from finetune_trainer.commands import run_process
from finetune_trainer.training import memory_check, memory_estimate, train
from finetune_trainer.training.dealt_base import LayerWindow
from finetune_trainer.training.loop import TrainingLoop
from tests.finetune_trainer.training.tiny_model import context_for, example, publish_dataset, spec_for
from tests.finetune_trainer.training.tiny_run import ROWS

QUESTIONS = [example(number) for number in range(20, 24)]


def packed_bytes() -> int:
    """Of all 4-bit weights and pieces of them that this process holds; what is as small as scales does not count."""
    held = [
        tensor.untyped_storage()
        for tensor in gc.get_objects()
        if isinstance(tensor, torch.Tensor) and tensor.dtype is torch.uint8 and tensor.dim() == 2
    ]
    return sum({storage._cdata: storage.nbytes() for storage in held}.values())


def main(folder: Path, base: Path, settings: dict[str, object]) -> None:
    """Train, and leave what this process saw."""
    number, count = os.environ.get("RANK", "0"), int(os.environ.get("WORLD_SIZE", "1"))
    context = context_for(folder, spec_for(base, **settings))
    if number == "0":
        publish_dataset(context, ROWS, QUESTIONS)
    seen: dict[str, object] = {}
    loops: list[TrainingLoop] = []
    held: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        prepare, back = train.prepare_loop, LayerWindow.back

        def prepare_and_look(*given: object) -> TrainingLoop:
            loops.append(prepare(*given))  # type: ignore[arg-type]
            gc.collect()
            seen["held"] = packed_bytes()
            return loops[0]

        def back_and_look(window: LayerWindow, layer: int) -> None:
            back(window, layer)
            if layer == len(window) // 2:  # to look takes longer than to learn
                held.append(packed_bytes())

        patch.setattr(train, "prepare_loop", prepare_and_look)
        patch.setattr(LayerWindow, "back", back_and_look)
        if count > 1:  # room for everything but the last byte, and no other way to make it fit
            patch.setattr(memory_check, "TOLERANCE", 1.0)
            patch.setattr(memory_estimate, "remedies", lambda training: iter([training]))
            patch.setattr(memory_check, "_room", lambda _device, estimate, _files: estimate.tensors - 1)
        environment = {**os.environ, "PET_NPROC_PER_NODE": str(count)}
        train.train(replace(context, environment=environment))
    weights = [part.weight for part in loops[0].model.modules() if isinstance(part, Linear4bit)]
    seen["whole"] = sum(weight.numel() for weight in weights)
    seen["mostHeld"] = max(held, default=0)
    (folder / f"seen-{number}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    run_process(lambda: main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
