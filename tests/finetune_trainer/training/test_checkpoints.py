"""What a run leaves behind when it ends early, and what the next attempt makes of it."""

from __future__ import annotations

import dataclasses
import errno
import shutil
from pathlib import Path

import pytest
import torch

from finetune_contract.artifact_layout import (
    adapter_folder,
    checkpoint_folder,
    checkpoints_folder,
)
from finetune_contract.artifacts import ArtifactKind
from finetune_trainer.artifact_files import describe_folder
from finetune_trainer.errors import Preempted, StoreRejected, StoreUnavailable, WorkspaceUnusable
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.local_folder import LocalFolder
from finetune_trainer.stores.store import Store
from finetune_trainer.training import checkpoints
from finetune_trainer.training.preparation import prepare_files, prepare_loop
from finetune_trainer.training.ranks import ALONE
from finetune_trainer.training.train import train
from tests.finetune_trainer.training.tiny_model import (
    RUN_KEY,
    SilentProgress,
    context_for,
    publish_dataset,
    spec_for,
)
from tests.finetune_trainer.training.tiny_run import (
    ROWS,
    StopAfter,
    adapter_weights,
    context_with_checkpoints,
    files_of_the_base,
    losses,
    run,
)


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7])
def test_a_run_that_is_told_to_stop_and_started_again_ends_as_if_nothing_had_happened(
    undisturbed: Path, base: Path, tmp_path: Path, stop_after: int
):
    with pytest.raises(Preempted, match="the next attempt goes on from there"):
        run(tmp_path, base, stop_after=files_of_the_base(base) + stop_after)
    assert not (tmp_path / "store" / adapter_folder(RUN_KEY)).exists()

    report = run(tmp_path, base)

    assert report.training is not None
    assert losses(tmp_path) == losses(undisturbed)
    for name, weight in adapter_weights(undisturbed).items():
        torch.testing.assert_close(adapter_weights(tmp_path)[name], weight, rtol=0, atol=0)
    assert context_for(tmp_path, spec_for(base)).store.list(checkpoints_folder(RUN_KEY)) == []


def interrupted(folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> StageContext:
    """A run with a checkpoint after every step that dies in step 5."""
    monkeypatch.setattr(
        "finetune_trainer.training.checkpointed_run.time.monotonic", iter(range(0, 10**9, 1000)).__next__
    )
    context = context_for(folder, spec_for(base))
    publish_dataset(context, ROWS)
    progress = context.progress
    assert isinstance(progress, SilentProgress)
    with monkeypatch.context() as patch:
        patch.setattr(progress, "losses", _DiesAt(5))
        with pytest.raises(RuntimeError, match="killed"):
            train(context)
    return context


class _DiesAt(list[float]):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def append(self, loss: float) -> None:
        super().append(loss)
        if len(self) == self.step:
            raise RuntimeError("killed")


def test_a_killed_run_goes_on_from_the_last_checkpoint_and_two_are_kept(
    undisturbed: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    context = interrupted(tmp_path, base, monkeypatch)
    assert sorted(p.name for p in (tmp_path / "store" / checkpoints_folder(RUN_KEY)).iterdir()) == [
        "step-00000003",
        "step-00000004",
    ]

    report = train(context)

    assert report.training is not None
    assert report.training.resumed_from_step == 4
    assert losses(tmp_path) == losses(undisturbed)


@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    undisturbed: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
):
    context = interrupted(tmp_path, base, monkeypatch)
    damaged = tmp_path / "store" / checkpoint_folder(RUN_KEY, 4) / name
    damaged.write_bytes(damaged.read_bytes()[:-5] + b"xxxxx")

    report = train(context)

    assert report.training is not None
    assert report.training.resumed_from_step == 3
    assert "checkpoint of step 4 is damaged" in caplog.text
    assert losses(tmp_path) == losses(undisturbed)


def test_a_checkpoint_holds_no_pickle(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted(tmp_path, base, monkeypatch)

    files = {p.suffix for p in (tmp_path / "store" / checkpoint_folder(RUN_KEY, 4)).iterdir()}

    assert files == {".safetensors", ".json"}


class FullDisk(LocalFolder):
    """Has room for everything but checkpoints."""

    def upload(self, key: str, path: Path) -> None:
        if "/checkpoints/" in key:
            raise OSError(28, "No space left on device")
        super().upload(key, path)


def test_a_checkpoint_that_cannot_be_written_costs_no_step(
    undisturbed: Path, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    context = context_for(tmp_path, spec_for(base))
    publish_dataset(context, ROWS)

    train(dataclasses.replace(context, store=FullDisk(tmp_path / "store")))

    assert "no checkpoint of step 6: [Errno 28] No space left on device" in caplog.text
    assert losses(tmp_path) == losses(undisturbed)


def test_a_stop_without_a_checkpoint_says_how_much_is_lost(base: Path, tmp_path: Path):
    questions = files_of_the_base(base) + 5
    context = context_for(tmp_path, spec_for(base), StopAfter(questions))
    publish_dataset(context, ROWS)

    with pytest.raises(
        Preempted, match=r"could not be written \(.*No space.* the next attempt goes on from step 0"
    ):
        train(dataclasses.replace(context, store=FullDisk(tmp_path / "store")))


def test_a_run_whose_adapter_cannot_be_stored_keeps_its_last_step(
    undisturbed: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    context = context_for(tmp_path, spec_for(base))
    publish_dataset(context, ROWS)
    with monkeypatch.context() as patch:
        patch.setattr("finetune_trainer.training.train._publish_adapter", _silent_store)
        with pytest.raises(StoreUnavailable):
            train(context)

    report = train(context)

    assert report.training is not None
    assert report.training.resumed_from_step == report.training.steps == 6
    assert losses(tmp_path) == losses(undisturbed)


def _silent_store(*_: object) -> None:
    raise StoreUnavailable("no answer")


def test_a_checkpoint_that_was_broken_off_is_named_and_goes_with_the_next_one(
    undisturbed: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    context = interrupted(tmp_path, base, monkeypatch)
    (tmp_path / "store" / checkpoint_folder(RUN_KEY, 4) / "manifest.json").unlink()

    report = train(context)

    assert report.training is not None
    assert report.training.resumed_from_step == 3
    assert "checkpoint of step 4 was broken off and is left out" in caplog.text
    assert losses(tmp_path) == losses(undisturbed)


def test_a_run_without_a_whole_checkpoint_begins_anew_and_says_so(
    undisturbed: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    context = interrupted(tmp_path, base, monkeypatch)
    for step in (3, 4):
        (tmp_path / "store" / checkpoint_folder(RUN_KEY, step) / "state.json").write_text("{}")

    report = train(context)

    assert report.training is not None
    assert report.training.resumed_from_step == 0
    assert "no checkpoint can be gone on from; training begins anew" in caplog.text
    assert losses(tmp_path) == losses(undisturbed)


def test_checkpoints_after_a_damaged_past_keep_the_newest_two_of_this_one(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A damaged one of a later step must not push out the whole ones before it."""
    context = interrupted(tmp_path, base, monkeypatch)
    folder = tmp_path / "store" / checkpoints_folder(RUN_KEY)
    (folder / "step-00000004").rename(folder / "step-00000009")
    (folder / "step-00000009" / "state.json").write_text("{}")
    with monkeypatch.context() as patch:
        patch.setattr(context.progress, "losses", _DiesAt(3))
        with pytest.raises(RuntimeError, match="killed"):
            train(context)

    assert sorted(path.name for path in folder.iterdir()) == ["step-00000004", "step-00000005"]


def test_checkpoints_of_other_runs_are_left_alone(base: Path, tmp_path: Path):
    context = context_for(tmp_path, spec_for(base))
    context.store.write("runs/other/checkpoints/step-00000001/manifest.json", b"{}")

    checkpoints.remove_all(context.store, RUN_KEY)

    assert context.store.list("runs/other/") == ["runs/other/checkpoints/step-00000001/manifest.json"]


@pytest.mark.parametrize(
    "state",
    ["[]", '{"step": null, "log": []}', '{"step": 4, "log": []}', '{"step": 4, "log": [{}, {}, {}, {}]}'],
)
def test_a_checkpoint_that_is_whole_and_says_nonsense_is_left_out(
    undisturbed: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
):
    context = interrupted(tmp_path, base, monkeypatch)
    folder = tmp_path / "store" / checkpoint_folder(RUN_KEY, 4)
    (folder / "state.json").write_text(state)
    manifest = describe_folder(folder, ArtifactKind.CHECKPOINT, {})
    (folder / "manifest.json").write_bytes(manifest.to_bytes())

    report = train(context)

    assert report.training is not None
    assert report.training.resumed_from_step == 3
    assert losses(tmp_path) == losses(undisturbed)


def test_a_checkpoint_of_an_adapter_with_another_rank_is_left_out(
    undisturbed: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    context = interrupted(tmp_path, base, monkeypatch)
    other = context_with_checkpoints(
        tmp_path / "other", base, lora={"rank": 2, "alpha": 4, "dropout": 0.1}, maxSteps=9
    )
    assert isinstance(other.progress, SilentProgress)
    monkeypatch.setattr(other.progress, "losses", _DiesAt(7))
    with pytest.raises(RuntimeError, match="killed"):
        train(other)
    step = checkpoint_folder(RUN_KEY, 6)
    shutil.copytree(tmp_path / "other" / "store" / step, tmp_path / "store" / step)

    report = train(context)

    assert report.training is not None
    assert report.training.resumed_from_step == 4
    assert "checkpoint of step 6 is damaged and left out: " in caplog.text
    assert "has another shape than in the model" in caplog.text
    assert losses(tmp_path) == losses(undisturbed)


def _full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_when_a_checkpoint_is_fetched_costs_no_checkpoint(
    undisturbed: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    context = interrupted(tmp_path, base, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "fetch_folder", _full_disk)
        with pytest.raises(WorkspaceUnusable, match=r"No space left.*raise spec\.resources\.train\.scratch"):
            train(context)

    report = train(context)

    assert report.training is not None
    assert report.training.resumed_from_step == 4
    assert losses(tmp_path) == losses(undisturbed)


def test_a_store_that_refuses_a_checkpoint_is_no_damaged_checkpoint(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    context = interrupted(tmp_path, base, monkeypatch)

    def refuse(*_: object) -> None:
        raise StoreRejected("access denied")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "fetch_folder", refuse)
        with pytest.raises(StoreRejected, match="access denied"):
            train(context)

    report = train(context)
    assert report.training is not None
    assert report.training.resumed_from_step == 4


def test_earlier_checkpoints_that_cannot_be_removed_now_cost_nothing_and_go_later(
    undisturbed: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    context = context_with_checkpoints(tmp_path, base)
    original = checkpoints._remove
    silent = iter([True, True])

    def remove(store: Store, key: str) -> None:
        if next(silent, False):
            _silent_store()
        original(store, key)

    monkeypatch.setattr(checkpoints, "_remove", remove)

    report = train(context)

    assert report.training is not None
    assert "earlier checkpoints stay until the next one is written" in caplog.text
    assert "no checkpoint of step" not in caplog.text
    assert losses(tmp_path) == losses(undisturbed)
    assert not list((tmp_path / "store").rglob("step-*"))


def test_a_checkpoint_made_with_longer_examples_is_left_out_where_trainings_are_compared(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    context = interrupted(tmp_path, base, monkeypatch)
    shorter = context.spec.training.model_copy(update={"sequence_length": 800})
    context = dataclasses.replace(context, spec=context.spec.model_copy(update={"training": shorter}))
    loop = prepare_loop(context, prepare_files(context, ALONE), ALONE)

    resumed = [
        checkpoints.resume(loop, context.store, RUN_KEY, tmp_path / "resumed", same_rows=same)
        for same in (True, False)
    ]

    assert resumed == [0, 4]
    assert "made with examples of up to 1024 tokens, now they have up to 800: it is left out" in caplog.text


def test_a_part_that_no_example_led_through_has_no_moments_and_is_gone_on_with(base: Path, tmp_path: Path):
    context = context_with_checkpoints(tmp_path, base)
    loop = prepare_loop(context, prepare_files(context, ALONE), ALONE)
    next(loop.steps(lambda: False))
    unused = next(iter(loop.parameters))
    del loop.optimizer.state[loop.parameters[unused]]
    checkpoints.save(loop, context.store, RUN_KEY, tmp_path / "aside")
    other = prepare_loop(context, prepare_files(context, ALONE), ALONE)

    assert checkpoints.resume(other, context.store, RUN_KEY, tmp_path / "resumed") == 1

    assert loop.parameters[unused].equal(other.parameters[unused])
    assert other.parameters[unused] not in other.optimizer.state
    assert len(other.optimizer.state) == len(other.parameters) - 1
