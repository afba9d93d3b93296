"""Carries a plan out in an order that a crash cannot spoil. Must not know why a folder goes.

The model's manifest goes first: without it nobody takes what is left for a model. Before it, a mark says that the
deletion has begun; the mark goes last. Whatever happens in between, the next sweep goes on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from finetune_contract.artifact_layout import model_folder, run_folder
from finetune_contract.artifacts import MANIFEST_NAME
from finetune_contract.protected_models import ProtectedModels
from finetune_trainer.artifact_files import delete_files, read_manifest_and_digest
from finetune_trainer.collection.plan import (
    DEFAULT_GRACE,
    DEFAULT_KEEP_PREVIOUS,
    Fate,
    Mark,
    StoredRun,
    Verdict,
    plan,
)
from finetune_trainer.errors import StoreRejected
from finetune_trainer.stores.store import Store

logger = logging.getLogger(__name__)

MARKS_FILE = "collection/marks.json"
_RUNS = run_folder("")


def sweep(
    store: Store,
    protected: ProtectedModels,
    now: datetime,
    *,
    dry_run: bool = True,
    keep_previous: int = DEFAULT_KEEP_PREVIOUS,
    grace: timedelta = DEFAULT_GRACE,
) -> tuple[Verdict, ...]:
    """Judge every run's folder and, unless it is a dry run, mark and delete. A dry run writes nothing at all.

    Raises:
        ValueError: see plan.
        StoreRejected: a manifest or the marks cannot be read; nothing was deleted.
        StoreUnavailable: the store stopped answering; the next sweep goes on.
    """
    marks = read_marks(store)
    stored = stored_runs(store)
    verdicts = plan(stored, protected, marks, now, keep_previous, grace)
    if dry_run:
        return verdicts
    kept = _marks_after(verdicts, marks, now)
    if kept != marks:
        _write_marks(store, kept)
    for verdict in verdicts:
        if verdict.fate in (Fate.DELETE, Fate.FINISH):
            kept = _delete(store, verdict.run, kept, now)
            logger.info(
                "model deleted: run_key=%s sha256=%s bytes=%d why=%s",
                verdict.run.run_key,
                verdict.run.digest,
                verdict.run.bytes,
                verdict.why,
            )
    return verdicts


def stored_runs(store: Store) -> tuple[StoredRun, ...]:
    """Every run's folder, by run key."""
    run_keys = sorted({key.removeprefix(_RUNS).split("/")[0] for key in store.list(_RUNS)})
    found: list[StoredRun] = []
    for run_key in run_keys:
        model = read_manifest_and_digest(store, model_folder(run_key))
        digest, size = (model[1], model[0].size_bytes) if model else ("", 0)
        found.append(StoredRun(run_key, digest, size))
    return tuple(found)


def read_marks(store: Store) -> dict[str, Mark]:
    """Marks of earlier sweeps by run key.

    Raises:
        StoreRejected: the file is not ours.
    """
    content = store.read(MARKS_FILE)
    if content is None:
        return {}
    try:
        return {
            run_key: Mark(_moment(mark["since"]), bool(mark["deleting"]))
            for run_key, mark in json.loads(content).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreRejected(
            f"{store.uri(MARKS_FILE)}: these are no marks of a sweep ({error!r}); delete the file, and the grace time "
            "begins anew"
        ) from error


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} names no time zone")
    return moment


def _marks_after(verdicts: Sequence[Verdict], marks: Mapping[str, Mark], now: datetime) -> dict[str, Mark]:
    """Marks of what is garbage now; what is named again, or was made anew, loses its mark."""
    kept: dict[str, Mark] = {}
    for verdict in verdicts:
        before = marks.get(verdict.run.run_key)
        if verdict.fate is Fate.MARK:
            kept[verdict.run.run_key] = before if before and not before.deleting else Mark(now)
        elif verdict.fate in (Fate.DELETE, Fate.FINISH) and before is not None:
            kept[verdict.run.run_key] = before
    return kept


def _delete(store: Store, run: StoredRun, marks: Mapping[str, Mark], now: datetime) -> dict[str, Mark]:
    before = marks.get(run.run_key, Mark(now))
    begun = {**marks, run.run_key: Mark(before.since, deleting=True)}
    _write_marks(store, begun)
    manifest = f"{model_folder(run.run_key)}/{MANIFEST_NAME}"
    store.delete([manifest])
    rest = [key for key in store.list(f"{run_folder(run.run_key)}/") if key != manifest]
    delete_files(store, rest)
    done = {run_key: mark for run_key, mark in begun.items() if run_key != run.run_key}
    _write_marks(store, done)
    return done


def _write_marks(store: Store, marks: Mapping[str, Mark]) -> None:
    wire = {key: {"since": mark.since.isoformat(), "deleting": mark.deleting} for key, mark in marks.items()}
    store.write(MARKS_FILE, (json.dumps(wire, indent=2, sort_keys=True) + "\n").encode())
