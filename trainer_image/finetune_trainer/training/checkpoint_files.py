"""What a checkpoint is made of: files of a folder, written from a loop and read back into one. No pickle.

Must not know stores, nor how many checkpoints there are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune_trainer.training.loop import LoopState, StepRecord, TrainingLoop, restore_random_state
from finetune_trainer.training.optimizers import restore_state, saved_state, state_fits

_ADAPTER, _OPTIMIZER, _RANDOM, _STATE = (
    "adapter.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "state.json",
)


def write(loop: TrainingLoop, folder: Path) -> None:
    """The loop's state after its last whole step. The rates and the place in the data follow from the step."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file({name: p.detach().cpu().contiguous() for name, p in loop.parameters.items()}, folder / _ADAPTER)
    moments: dict[str, Tensor] = {}
    untouched: list[str] = []
    for name, parameter in loop.parameters.items():
        remembered = saved_state(loop.optimizer, parameter)
        if not remembered:  # no example has led through it yet, as through an expert that none was sent to
            untouched.append(name)
        for key, value in remembered.items():
            moments[f"{name}/{key}"] = value.detach().cpu().contiguous()
    save_file(moments, folder / _OPTIMIZER)
    save_file(loop.random_state, folder / _RANDOM)
    log = [asdict(record) for record in loop.state.log]
    state = {"step": loop.state.step, "log": log, "withoutMoments": untouched}
    (folder / _STATE).write_text(json.dumps(state) + "\n")


def read(loop: TrainingLoop, folder: Path) -> None:
    """Bring the loop to the state of the folder. Everything is read and compared before the loop is changed.

    Raises:
        OSError, SafetensorError: a file is missing or cut off.
        KeyError, TypeError, ValueError: the files are of another model, or say something else.
    """
    adapter, moments = load_file(folder / _ADAPTER), load_file(folder / _OPTIMIZER)
    random_state = load_file(folder / _RANDOM)
    content = json.loads((folder / _STATE).read_text())
    state = LoopState(step=int(content["step"]), log=[StepRecord(**record) for record in content["log"]])
    if len(state.log) != state.step:
        raise ValueError(f"the log has {len(state.log)} steps of {state.step}")
    moments_of: dict[str, dict[str, Tensor]] = {name: {} for name in loop.parameters}
    for entry, value in moments.items():
        name, _, key = entry.rpartition("/")
        moments_of[name][key] = value
    untouched = set(content.get("withoutMoments", ()))
    _check_shapes(loop, adapter, {name: found for name, found in moments_of.items() if name not in untouched})
    restore_random_state(random_state)
    with torch.no_grad():
        for name, parameter in loop.parameters.items():
            parameter.copy_(adapter[name])
            if name not in untouched:
                restore_state(loop.optimizer, parameter, moments_of[name])
    loop.random_state = random_state
    loop.state = state


def _check_shapes(
    loop: TrainingLoop, adapter: Mapping[str, Tensor], moments_of: Mapping[str, Mapping[str, Tensor]]
) -> None:
    if adapter.keys() != loop.parameters.keys():
        raise ValueError("the adapter has other layers than the model")
    for name, parameter in loop.parameters.items():
        fits = name not in moments_of or state_fits(parameter, moments_of[name])
        if adapter[name].shape != parameter.shape or not fits:
            raise ValueError(f"{name} has another shape than in the model")
