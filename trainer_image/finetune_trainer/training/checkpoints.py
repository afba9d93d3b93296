"""Checkpoints in the store: written whole or not at all, two kept, the newest whole one resumed. No pickle.

Must not know what the loop does between them.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from finetune_contract.artifact_layout import checkpoint_folder, checkpoints_folder
from finetune_contract.artifacts import MANIFEST_NAME, ArtifactKind
from finetune_trainer.artifact_files import fetch_folder, publish_folder
from finetune_trainer.errors import StoreRejected
from finetune_trainer.stores.store import Store
from finetune_trainer.training.loop import LoopState, StepRecord, TrainingLoop, restore_random_state

logger = logging.getLogger(__name__)

KEPT = 2
_ADAPTER, _OPTIMIZER, _RANDOM, _STATE = (
    "adapter.safetensors",
    "optimizer.safetensors",
    "random.safetensors",
    "state.json",
)


def save(loop: TrainingLoop, store: Store, run_key: str, work_folder: Path) -> None:
    """Write the loop's state after its last whole step, then remove all but the newest checkpoints."""
    folder = work_folder / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file({name: p.detach().cpu().contiguous() for name, p in loop.parameters.items()}, folder / _ADAPTER)
    moments: dict[str, torch.Tensor] = {}
    for name, parameter in loop.parameters.items():
        for key, value in loop.optimizer.state.get(parameter, {}).items():
            moments[f"{name}/{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    save_file(moments, folder / _OPTIMIZER)
    save_file(loop.random_state, folder / _RANDOM)
    state = {"step": loop.state.step, "log": [asdict(record) for record in loop.state.log]}
    (folder / _STATE).write_text(json.dumps(state) + "\n")
    publish_folder(
        store,
        checkpoint_folder(run_key, loop.state.step),
        folder,
        ArtifactKind.CHECKPOINT,
        {"step": loop.state.step, "runKey": run_key},
    )
    shutil.rmtree(folder)
    for step in _steps(store, run_key)[:-KEPT]:
        _remove(store, checkpoint_folder(run_key, step))


def resume(loop: TrainingLoop, store: Store, run_key: str, work_folder: Path) -> int:
    """Take up the newest whole checkpoint; the step it was made after, 0 when there is none.

    One that is damaged is named in the log and the one before is taken.
    """
    for step in reversed(_steps(store, run_key)):
        key = checkpoint_folder(run_key, step)
        folder = work_folder / "resumed"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fetch_folder(store, key, folder)
            _restore(loop, folder)
        except (StoreRejected, SafetensorError, KeyError, ValueError, OSError) as error:
            logger.warning("checkpoint of step %d is damaged and left out: %s", step, error)
            continue
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        logger.info("training goes on from a checkpoint: step=%d uri=%s", step, store.uri(key))
        return step
    return 0


def remove_all(store: Store, run_key: str) -> None:
    """For when the adapter is stored."""
    for step in _steps(store, run_key):
        _remove(store, checkpoint_folder(run_key, step))
    store.delete(store.list(f"{checkpoints_folder(run_key)}/"))


def _restore(loop: TrainingLoop, folder: Path) -> None:
    """Read everything first, then change the loop, so that a damaged file leaves it as it was."""
    adapter, moments = load_file(folder / _ADAPTER), load_file(folder / _OPTIMIZER)
    random_state = load_file(folder / _RANDOM)
    content = json.loads((folder / _STATE).read_text())
    state = LoopState(step=int(content["step"]), log=[StepRecord(**record) for record in content["log"]])
    if adapter.keys() != loop.parameters.keys():
        raise ValueError("the adapter has other layers than the model")
    moments_of = {
        name: {key: moments[f"{name}/{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        for name in loop.parameters
    }
    with torch.no_grad():
        for name, parameter in loop.parameters.items():
            parameter.copy_(adapter[name])
            loop.optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device)
                for key, value in moments_of[name].items()
            }
    if loop.device.type == "cuda":  # the fused optimizer counts its steps on the GPU
        for parameter in loop.parameters.values():
            loop.optimizer.state[parameter]["step"] = loop.optimizer.state[parameter]["step"].to(loop.device)
    restore_random_state(random_state)
    loop.random_state = random_state
    loop.state = state


def _steps(store: Store, run_key: str) -> list[int]:
    """Steps of the whole checkpoints, oldest first."""
    steps = []
    for key in store.list(f"{checkpoints_folder(run_key)}/"):
        folder, _, name = key.rpartition("/")
        if name == MANIFEST_NAME:
            steps.append(int(folder.rpartition("-")[2]))
    return sorted(steps)


def _remove(store: Store, key: str) -> None:
    """The manifest goes first: what is half removed is no checkpoint."""
    store.delete([f"{key}/{MANIFEST_NAME}"])
    store.delete(store.list(f"{key}/"))
