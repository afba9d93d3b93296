"""Models leave the store whole or not at all, whenever the sweep dies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_contract.artifact_layout import adapter_folder, evaluation_folder, model_folder
from finetune_contract.artifacts import MANIFEST_NAME, ArtifactKind
from finetune_contract.protected_models import ProtectedModels
from finetune_contract.stage_protocol import ExitCode
from finetune_trainer.artifact_files import fetch_folder, publish_folder, read_manifest
from finetune_trainer.collection.__main__ import main
from finetune_trainer.collection.plan import Fate
from finetune_trainer.collection.sweep import MARKS_FILE, read_marks, stored_runs, sweep
from finetune_trainer.errors import StoreRejected
from finetune_trainer.stores.local_folder import LocalFolder

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GRACE = timedelta(hours=1)
KEPT, GONE, ALSO_GONE = "1" * 64, "2" * 64, "3" * 64


class Killed(Exception):
    """The sweep's pod is gone."""


class DyingStore(LocalFolder):
    """Dies before its n-th change; every single key that is deleted counts as one."""

    def __init__(self, root: Path, changes: int) -> None:
        super().__init__(root)
        self.left = changes

    def write(self, key: str, content: bytes) -> None:
        self._spend()
        super().write(key, content)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._spend()
            super().delete([key])

    def _spend(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


def publish(store: LocalFolder, run_key: str, folder: Path) -> str:
    """A small run in the store; the digest of its model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.gguf").write_bytes(run_key.encode())
    (folder / "README.md").write_text("a model")
    publish_folder(store, adapter_folder(run_key), folder, ArtifactKind.ADAPTER, {})
    publish_folder(store, evaluation_folder(run_key), folder, ArtifactKind.EVALUATION, {})
    return publish_folder(store, model_folder(run_key), folder, ArtifactKind.MODEL, {"key": run_key}).sha256()


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(tmp_path / "store")


@pytest.fixture
def protected(store: LocalFolder, tmp_path: Path) -> ProtectedModels:
    """Three models, of which one is live."""
    kept = publish(store, KEPT, tmp_path / "made")
    for run_key in (GONE, ALSO_GONE):
        publish(store, run_key, tmp_path / "made")
    return ProtectedModels(live=[kept], made_at=datetime.now(UTC))


def keys_of(store: LocalFolder, run_key: str) -> list[str]:
    return store.list(f"runs/{run_key}/")


def test_a_dry_run_says_what_would_go_and_touches_nothing(store, protected):
    before = store.list("")

    verdicts = sweep(store, protected, NOON, grace=timedelta())

    assert [verdict.fate for verdict in verdicts] == [Fate.KEEP, Fate.MARK, Fate.MARK]
    assert store.list("") == before


def test_garbage_is_marked_first_and_deleted_after_the_grace_time(store, protected, tmp_path):
    sweep(store, protected, NOON, dry_run=False, grace=GRACE)
    marked = keys_of(store, GONE)
    sweep(store, protected, NOON + GRACE, dry_run=False, grace=GRACE)

    assert marked
    assert keys_of(store, GONE) == keys_of(store, ALSO_GONE) == []
    assert read_marks(store) == {}
    fetch_folder(store, model_folder(KEPT), tmp_path / "fetched")


def test_a_model_that_is_named_again_loses_its_mark(store, protected):
    sweep(store, protected, NOON, dry_run=False, grace=GRACE)
    digests = {run.run_key: run.digest for run in stored_runs(store)}
    named = protected.model_copy(update={"candidates": [digests[GONE]]})

    sweep(store, named, NOON + GRACE, dry_run=False, grace=GRACE)

    assert keys_of(store, GONE)
    assert read_marks(store) == {}


def test_a_model_whose_manifest_another_release_wrote_is_known_by_its_bytes(store, tmp_path):
    publish(store, GONE, tmp_path / "made")
    key = f"{model_folder(GONE)}/{MANIFEST_NAME}"
    written = json.dumps(json.loads(store.read(key) or b"")).encode()
    store.write(key, written)

    digests = {run.run_key: run.digest for run in stored_runs(store)}

    assert digests[GONE] == hashlib.sha256(written).hexdigest()


def test_a_sweep_may_die_before_any_change_and_the_next_one_goes_on(store, protected, tmp_path):
    sweep(store, protected, NOON, dry_run=False, grace=GRACE)
    deaths = 0
    for changes in range(100):
        dying = DyingStore(tmp_path / f"copy-{changes}", changes)
        copy_store(store, dying.root)
        try:
            sweep(dying, protected, NOON + GRACE, dry_run=False, grace=GRACE)
        except Killed:
            deaths += 1
        else:
            break

        healthy = LocalFolder(dying.root)
        for run_key in (KEPT, GONE, ALSO_GONE):
            if read_manifest(healthy, model_folder(run_key)) is not None:
                fetch_folder(healthy, model_folder(run_key), tmp_path / f"fetched-{changes}-{run_key[0]}")
        for times in (1, 2):
            sweep(healthy, protected, NOON + times * GRACE, dry_run=False, grace=GRACE)
        assert keys_of(healthy, GONE) == keys_of(healthy, ALSO_GONE) == []
        assert keys_of(healthy, KEPT) == keys_of(store, KEPT)
        assert read_marks(healthy) == {}

    assert deaths > 2 * 9


def test_a_model_that_is_made_anew_after_a_broken_deletion_is_not_deleted_with_its_rest(
    store, protected, tmp_path
):
    sweep(store, protected, NOON, dry_run=False, grace=GRACE)
    with pytest.raises(Killed):
        sweep(DyingStore(store.root, 3), protected, NOON + GRACE, dry_run=False, grace=GRACE)
    assert read_manifest(store, model_folder(GONE)) is None
    publish(store, GONE, tmp_path / "made")

    sweep(store, protected, NOON + 2 * GRACE, dry_run=False, grace=GRACE)

    fetch_folder(store, model_folder(GONE), tmp_path / "fetched")
    assert not read_marks(store)[GONE].deleting


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{", b'{"1": {"since": "2026-03-01T12:00:00", "deleting": false}}', b'{"1": {"since": "soon"}}'],
)
def test_marks_that_cannot_be_read_or_name_no_time_zone_stop_the_sweep(store, protected, content):
    store.write(MARKS_FILE, content)

    with pytest.raises(StoreRejected, match="no marks of a sweep"):
        sweep(store, protected, NOON, dry_run=False)


@pytest.mark.parametrize("hours", ["inf", "nan", "-1", "1e300", "two"])
def test_a_grace_time_that_is_none_is_refused_as_such(store, capsys, hours):
    with pytest.raises(SystemExit) as ended:
        main(["--workspace", str(store.root), "--protected", "x.json", "--grace-hours", hours])

    assert ended.value.code == 2
    assert "argument --grace-hours: expected hours from 0 to 87600" in capsys.readouterr().err


def test_the_command_shows_first_and_deletes_when_told_to(store, protected, tmp_path, capsys):
    names = tmp_path / "protected.json"
    names.write_text(json.dumps(protected.to_wire()))
    command = ["--workspace", str(store.root), "--protected", str(names), "--grace-hours", "0"]

    assert main(command) == 0
    shown = capsys.readouterr().out
    assert main([*command, "--delete"]) == 0
    assert main([*command, "--delete"]) == 0

    assert "dry run: nothing was written" in shown
    assert "pinned by a ReplicaSet" in shown
    assert keys_of(store, GONE) == []
    assert keys_of(store, KEPT)


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(hours=1, minutes=1), "more than 1:00:00 from now"),
        (timedelta(hours=-2), "more than 1:00:00 from now"),
        (None, "does not say when it was made"),
    ],
)
def test_the_command_deletes_only_by_a_list_that_was_made_just_now(
    store, protected, tmp_path, capsys, age, words
):
    """A run may have taken up a marked model since."""
    made_at = datetime.now(UTC) - age if age else None
    names = tmp_path / "protected.json"
    names.write_text(json.dumps(protected.model_copy(update={"made_at": made_at}).to_wire()))
    command = ["--workspace", str(store.root), "--protected", str(names), "--grace-hours", "0"]

    assert main(command) == 0
    assert main([*command, "--delete"]) == ExitCode.INVALID_RUN

    told = capsys.readouterr().err
    assert words in told
    assert "python -m finetune_operator.protected_models" in told
    assert read_marks(store) == {}


def test_the_command_refuses_a_list_that_protects_nothing(store, protected, tmp_path, capsys):
    names = tmp_path / "protected.json"
    names.write_text(json.dumps({"madeAt": datetime.now(UTC).isoformat()}))

    assert main(["--workspace", str(store.root), "--protected", str(names), "--delete"]) != 0

    assert "everything would go" in capsys.readouterr().err
    assert keys_of(store, GONE)


def copy_store(store: LocalFolder, root: Path) -> None:
    for key in store.list(""):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(store.read(key) or b"")
