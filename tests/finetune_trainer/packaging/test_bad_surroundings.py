"""A full disk, a read-only workspace, a store that falls silent: said in words, and what was finished stays."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from finetune_contract.artifact_layout import GGUF_FILE, SAFETENSORS_FOLDER, model_folder
from finetune_contract.stage_protocol import ExitCode
from finetune_trainer.artifact_files import UPLOADED_NAME, read_manifest
from finetune_trainer.errors import Preempted, StoreUnavailable, WorkspaceUnusable
from finetune_trainer.packaging import gguf
from finetune_trainer.packaging import model_folder as making
from finetune_trainer.packaging.package import package, package_base
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.local_folder import LocalFolder
from finetune_trainer.workspace_errors import check_room, workspace_errors
from tests.finetune_trainer.packaging.finished_training import finished_training
from tests.finetune_trainer.training.tiny_model import RUN_KEY, save_tiny_model, tiny_tokenizer


class FallsSilent(LocalFolder):
    """A store that answers until the file with this name is sent; it remembers what was."""

    def __init__(self, root: Path, at: str) -> None:
        super().__init__(root)
        self.at = at
        self.sent: list[str] = []

    def upload(self, key: str, path: Path) -> None:
        if self.at and key.endswith(self.at):
            raise StoreUnavailable(f"{key}: no answer")
        self.sent.append(key.rpartition("/")[2])
        super().upload(key, path)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow beyond `size` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def trained(base: Path, tmp_path: Path) -> StageContext:
    return finished_training(tmp_path, base)


def test_a_disk_that_is_full_while_merging_is_named_with_the_remedy(base: Path, tmp_path: Path):
    store = LocalFolder(tmp_path / "store")

    with (
        largest_file(100_000),
        pytest.raises(
            WorkspaceUnusable, match=r"File too large; raise spec\.resources\.other\.scratch"
        ) as refusal,
    ):
        package_base(base, store, "x", work_folder=tmp_path / "work")

    assert refusal.value.exit_code is ExitCode.INVALID_RUN
    assert read_manifest(store, "x") is None
    assert not (tmp_path / "work" / f"{base.name}-packaged" / SAFETENSORS_FOLDER).exists()


def test_a_disk_that_is_full_while_converting_is_named_and_the_merged_model_stays(base: Path, tmp_path: Path):
    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(sharded, max_shard_size="60KB")
    tiny_tokenizer().save_pretrained(sharded)
    largest = max(path.stat().st_size for path in sharded.iterdir())
    context = finished_training(tmp_path, sharded)
    folder = context.work_folder / "model"

    with (
        largest_file(largest + 5000),
        pytest.raises(WorkspaceUnusable, match=r"No space left on device.*spec\.resources\.other\.scratch"),
    ):
        package(context)

    assert (folder / SAFETENSORS_FOLDER / "config.json").is_file()
    assert not (folder / GGUF_FILE).exists()
    assert package(context).model is not None


def test_too_little_room_is_said_before_the_work_begins(tmp_path: Path):
    check_room(tmp_path, 1000)
    with pytest.raises(WorkspaceUnusable, match=r"packaging needs 1000000\.0 GiB, .* GiB are free"):
        check_room(tmp_path, 1_000_000 << 30)


def test_a_read_only_workspace_is_named_with_the_remedy(trained: StageContext):
    # Nobody may make a file there, not even root.
    locked = dataclasses.replace(trained, work_folder=Path("/sys/kernel"))

    with pytest.raises(
        WorkspaceUnusable, match="mount the work folder writable, or on a laptop choose another"
    ):
        package(locked)


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path):
    with pytest.raises(FileNotFoundError), workspace_errors(tmp_path):
        (tmp_path / "missing").read_text()


def test_an_upload_that_broke_off_goes_on_with_the_files_that_are_missing(trained: StageContext):
    root = trained.work_folder.parent / "store"
    silent, answering = FallsSilent(root, "prompt.json"), FallsSilent(root, "")
    folder = trained.work_folder / "model"

    with pytest.raises(StoreUnavailable):
        package(dataclasses.replace(trained, store=silent))
    assert read_manifest(answering, model_folder(RUN_KEY)) is None
    made = {name: (folder / name).stat().st_mtime_ns for name in (GGUF_FILE, SAFETENSORS_FOLDER)}
    report = package(dataclasses.replace(trained, store=answering))

    assert silent.sent == ["README.md", GGUF_FILE]
    assert not {"README.md", GGUF_FILE} & set(answering.sent)
    assert "prompt.json" in answering.sent
    assert {name: (folder / name).stat().st_mtime_ns for name in made} == made
    manifest = read_manifest(answering, model_folder(RUN_KEY))
    assert manifest is not None
    assert report.model is not None
    assert report.model.manifest_sha256 == manifest.sha256()
    assert f"{model_folder(RUN_KEY)}/{UPLOADED_NAME}" not in answering.list("")
    for entry in manifest.files:
        assert (root / model_folder(RUN_KEY) / entry.path).stat().st_size == entry.size


def test_told_to_stop_it_keeps_what_is_finished_for_the_next_attempt(
    trained: StageContext, monkeypatch: pytest.MonkeyPatch
):
    merged = trained.work_folder / "model" / SAFETENSORS_FOLDER
    with pytest.raises(Preempted, match="goes on from there"):
        package(dataclasses.replace(trained, stop_requested=merged.is_dir))

    def again(*_: object) -> None:
        raise AssertionError("merged twice")

    monkeypatch.setattr(making, "save_merged", again)
    assert package(trained).model is not None


def test_an_attempt_with_another_recipe_begins_anew(trained: StageContext):
    folder = trained.work_folder / "model"
    folder.mkdir(parents=True)
    (folder / GGUF_FILE).write_bytes(b"of another model")
    folder.with_name("model.recipe").write_text("another")

    package(trained)

    assert gguf.chat_template_of(folder / GGUF_FILE)
