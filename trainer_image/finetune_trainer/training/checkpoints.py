"""Checkpoints in the store: written whole or not at all, two kept, the newest whole one resumed.

Must not know what the loop does between them.
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from safetensors import SafetensorError

from finetune_contract.artifact_layout import checkpoint_folder, checkpoints_folder
from finetune_contract.artifacts import MANIFEST_NAME, ArtifactKind
from finetune_trainer.artifact_files import Fact, fetch_folder, publish_folder
from finetune_trainer.errors import ArtifactDamaged, StoreUnavailable
from finetune_trainer.stores.store import Store
from finetune_trainer.training import checkpoint_files
from finetune_trainer.training.loop import TrainingLoop, restore_random_state

logger = logging.getLogger(__name__)

KEPT = 2
_LENGTH = "sequenceLength"
_STEP = re.compile(r"/step-(\d+)/")


def save(loop: TrainingLoop, store: Store, run_key: str, work_folder: Path) -> None:
    """Write the loop's state after its last whole step, then remove all but the newest checkpoints.

    It is written aside first, and its manifest is uploaded last. What bears a later step is of a past that was
    damaged and left: it goes too. What cannot be removed now is removed after the next one.
    """
    step = loop.state.step
    key = checkpoint_folder(run_key, step)
    folder = work_folder / "checkpoint"
    try:
        checkpoint_files.write(loop, folder)
        store.delete([f"{key}/{MANIFEST_NAME}"])
        facts: dict[str, Fact] = {"step": step, "runKey": run_key, _LENGTH: loop.training.sequence_length}
        publish_folder(store, key, folder, ArtifactKind.CHECKPOINT, facts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        _remove_earlier(store, run_key, step)
    except (StoreUnavailable, OSError) as error:
        logger.warning("earlier checkpoints stay until the next one is written: %s", error)


def _remove_earlier(store: Store, run_key: str, step: int) -> None:
    found = _found(store, run_key)
    kept = sorted(other for other, whole in found.items() if whole and other <= step)[-KEPT:]
    for other in found.keys() - set(kept):
        _remove(store, checkpoint_folder(run_key, other))


def resume(loop: TrainingLoop, store: Store, run_key: str, work_folder: Path, same_rows: bool = False) -> int:
    """Take up the newest whole checkpoint; the step it was made after, 0 when there is none.

    One that is damaged, or was broken off, is named in the log and the one before is taken.

    Args:
        same_rows: leave out one that was made while longer examples were trained.
    Raises:
        StoreRejected, StoreUnavailable, OSError: a checkpoint cannot be had now; it stays for the next attempt.
    """
    found = _found(store, run_key)
    folder = work_folder / "resumed"
    untouched = loop.random_state
    for step, whole in sorted(found.items(), reverse=True):
        key = checkpoint_folder(run_key, step)
        if not whole:
            logger.warning(
                "checkpoint of step %d was broken off and is left out: uri=%s", step, store.uri(key)
            )
            continue
        shutil.rmtree(folder, ignore_errors=True)
        try:
            length = fetch_folder(store, key, folder).facts.get(_LENGTH, loop.training.sequence_length)
            if length != loop.training.sequence_length:
                logger.warning(
                    "checkpoint of step %d was made with examples of up to %s tokens, now they have up to %d: %s",
                    *(step, length, loop.training.sequence_length),
                    "it is left out" if same_rows else "training goes on from it with those that are left",
                )
                if same_rows:
                    continue
            checkpoint_files.read(loop, folder)
        except (
            ArtifactDamaged,
            SafetensorError,
            KeyError,
            TypeError,
            ValueError,
            FileNotFoundError,
        ) as error:
            logger.warning("checkpoint of step %d is damaged and left out: %s", step, error)
            continue
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        logger.info("training goes on from a checkpoint: step=%d uri=%s", step, store.uri(key))
        return step
    if found:
        logger.warning("no checkpoint can be gone on from; training begins anew: left_out=%d", len(found))
        restore_random_state(untouched)
    return 0


def remove_all(store: Store, run_key: str) -> None:
    """For when the adapter is stored."""
    for step in _found(store, run_key):
        _remove(store, checkpoint_folder(run_key, step))
    store.delete(store.list(f"{checkpoints_folder(run_key)}/"))


def _found(store: Store, run_key: str) -> dict[int, bool]:
    """Steps of the checkpoints in the store, and whether each has its manifest."""
    found: dict[int, bool] = {}
    for key in store.list(f"{checkpoints_folder(run_key)}/"):
        if (step := _STEP.search(key)) is not None:
            number = int(step[1])
            found[number] = found.get(number, False) or key.endswith(f"/{MANIFEST_NAME}")
    return found


def _remove(store: Store, key: str) -> None:
    """The manifest goes first: what is half removed is no checkpoint."""
    store.delete([f"{key}/{MANIFEST_NAME}"])
    store.delete(store.list(f"{key}/"))
