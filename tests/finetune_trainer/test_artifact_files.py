"""Artifact folders: the manifest comes last, and every file is checked on its way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_contract.artifacts import ArtifactKind
from finetune_trainer.artifact_files import fetch_folder, publish_folder, read_manifest
from finetune_trainer.errors import StoreRejected, StoreUnavailable
from finetune_trainer.stores.local_folder import LocalFolder


class BreaksOff(LocalFolder):
    """A store that loses its connection at one file."""

    def upload(self, key: str, path: Path) -> None:
        if key.endswith("b.txt"):
            raise StoreUnavailable("no answer")
        super().upload(key, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "deep").mkdir(parents=True)
    (made / "a.txt").write_text("a")
    (made / "deep" / "b.txt").write_text("bb")
    return made


@pytest.fixture
def store(tmp_path: Path) -> LocalFolder:
    return LocalFolder(tmp_path / "store")


def test_a_folder_comes_back_as_it_went(store, folder, tmp_path):
    manifest = publish_folder(store, "x", folder, ArtifactKind.MODEL, {"n": 1}, serving=["a.txt"])

    assert fetch_folder(store, "x", tmp_path / "back") == manifest
    assert (tmp_path / "back" / "deep" / "b.txt").read_text() == "bb"
    assert [(entry.path, entry.size, entry.serving) for entry in manifest.files] == [
        ("a.txt", 1, True),
        ("deep/b.txt", 2, False),
    ]
    assert manifest.size_bytes == 3


def test_the_same_files_give_the_same_manifest(store, folder):
    first = publish_folder(store, "x", folder, ArtifactKind.MODEL, {})

    assert publish_folder(store, "y", folder, ArtifactKind.MODEL, {}).sha256() == first.sha256()


def test_an_upload_that_breaks_off_leaves_no_manifest(tmp_path, folder):
    store = BreaksOff(tmp_path / "store")

    with pytest.raises(StoreUnavailable):
        publish_folder(store, "x", folder, ArtifactKind.MODEL, {})

    assert read_manifest(store, "x") is None


def test_a_folder_without_a_manifest_is_not_fetched(store, folder, tmp_path):
    with pytest.raises(StoreRejected, match="there is no manifest"):
        fetch_folder(store, "x", tmp_path / "back")


def test_a_damaged_object_is_refused_and_not_kept(store, folder, tmp_path):
    publish_folder(store, "x", folder, ArtifactKind.MODEL, {})
    store.write("x/a.txt", b"z")

    with pytest.raises(StoreRejected, match=r"a\.txt: sha256 is .* the manifest says"):
        fetch_folder(store, "x", tmp_path / "back")

    assert not (tmp_path / "back" / "a.txt").exists()


def test_files_that_are_there_and_right_are_not_fetched_again(store, folder, tmp_path):
    publish_folder(store, "x", folder, ArtifactKind.MODEL, {})
    store.delete(["x/a.txt", "x/deep/b.txt"])

    assert fetch_folder(store, "x", folder).kind == ArtifactKind.MODEL


def test_a_manifest_of_another_version_is_refused_with_the_remedy(store):
    store.write("x/manifest.json", b'{"kind": "spaceship"}')

    with pytest.raises(StoreRejected, match="delete the folder to make it anew"):
        read_manifest(store, "x")
