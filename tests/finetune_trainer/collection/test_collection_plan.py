"""What stays in the store, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from finetune_contract.protected_models import ProtectedModels
from finetune_trainer.collection.plan import Fate, Mark, StoredRun, plan

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = Mark(NOON - timedelta(days=9))


def digest(letter: str) -> str:
    return letter * 64


def fate_of(run: StoredRun, protected: ProtectedModels, mark: Mark | None = LONG_AGO, keep: int = 2) -> Fate:
    marks = {run.run_key: mark} if mark else {}
    (verdict,) = plan([run], protected, marks, NOON, keep)
    return verdict.fate


HISTORY = ProtectedModels(history={"demo/deployment/chat": [digest(letter) for letter in "abcd"]})
OTHER = ProtectedModels(live=[digest("f")])


@pytest.mark.parametrize(
    ("letter", "fate"), [("a", Fate.KEEP), ("b", Fate.KEEP), ("c", Fate.KEEP), ("d", Fate.DELETE)]
)
def test_the_current_model_and_so_many_before_it_stay(letter, fate):
    assert fate_of(StoredRun("key", digest(letter)), HISTORY) is fate


@pytest.mark.parametrize(
    "protected",
    [
        ProtectedModels(live=[digest("e")]),
        ProtectedModels(candidates=[digest("e")]),
        ProtectedModels(active_run_keys=["key"]),
        ProtectedModels(
            history={"one": [digest("a"), digest("b"), digest("c"), digest("e")], "two": [digest("e")]}
        ),
    ],
)
def test_whatever_names_a_model_keeps_it(protected):
    assert fate_of(StoredRun("key", digest("e")), protected) is Fate.KEEP


@pytest.mark.parametrize(
    ("mark", "fate"),
    [
        (None, Fate.MARK),
        (Mark(NOON - timedelta(hours=47)), Fate.MARK),
        (Mark(NOON - timedelta(hours=48)), Fate.DELETE),
        (Mark(NOON + timedelta(hours=1)), Fate.MARK),
    ],
)
def test_garbage_goes_only_when_it_has_been_garbage_for_long_enough(mark, fate):
    assert fate_of(StoredRun("key", digest("e")), OTHER, mark) is fate


def test_a_folder_without_a_whole_model_stays_unless_its_deletion_had_begun():
    half = StoredRun("key", "")

    assert fate_of(half, OTHER, None) is Fate.KEEP
    assert fate_of(half, OTHER, LONG_AGO) is Fate.KEEP
    assert fate_of(half, OTHER, Mark(NOON, deleting=True)) is Fate.FINISH


def test_a_model_that_was_made_anew_after_a_broken_deletion_is_judged_from_the_start():
    assert fate_of(StoredRun("key", digest("e")), OTHER, Mark(LONG_AGO.since, deleting=True)) is Fate.MARK


def test_a_run_at_work_in_a_half_deleted_folder_is_left_alone():
    at_work = ProtectedModels(active_run_keys=["key"])

    assert fate_of(StoredRun("key", ""), at_work, Mark(NOON, deleting=True)) is Fate.KEEP


@pytest.mark.parametrize(
    ("protected", "keep"), [(ProtectedModels(), 2), (ProtectedModels(history={"chat": []}), 2), (OTHER, -1)]
)
def test_a_list_that_protects_nothing_is_taken_for_a_mistake(protected, keep):
    with pytest.raises(ValueError, match=r"empty|negative"):
        plan([StoredRun("key", digest("e"))], protected, {}, NOON, keep)
