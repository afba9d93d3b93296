"""An S3 server that falls silent in the middle of an upload costs the files that were not sent yet, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws

from finetune_contract.artifacts import ArtifactKind, Manifest
from finetune_contract.run_spec import S3StoreSpec
from finetune_trainer.artifact_files import UPLOADED_NAME, fetch_folder, publish_folder, read_manifest
from finetune_trainer.errors import StoreUnavailable
from finetune_trainer.stores.s3 import S3Store


class Line:
    """The way to the server: counts what passes, and can be cut before a file."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.cut_before = ""

    def __call__(self, request: Any, **_: object) -> None:
        name = request.url.partition("?")[0].partition("/m/")[2]
        if self.cut_before and name == self.cut_before:
            raise EndpointConnectionError(endpoint_url=request.url)
        self.sent.append(name)


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def store(line: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with mock_aws():
        made = S3Store.from_spec(S3StoreSpec(bucket="models", prefix="team"))
        made.client.create_bucket(Bucket="models")
        made.client.meta.events.register_first("before-send.s3.PutObject", line)
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "safetensors").mkdir(parents=True)
    for name in ("README.md", "model.gguf", "prompt.json", "safetensors/config.json"):
        (made / name).write_text(name)
    return made


def publish(store: S3Store, folder: Path) -> Manifest:
    return publish_folder(store, "m", folder, ArtifactKind.MODEL, {}, serving={"model.gguf"}, resume=True)


def test_what_was_sent_is_not_sent_again(store: S3Store, line: Line, folder: Path, tmp_path: Path):
    line.cut_before = "prompt.json"
    with pytest.raises(StoreUnavailable, match=r"prompt\.json: no answer"):
        publish(store, folder)
    assert read_manifest(store, "m") is None

    line.cut_before, line.sent = "", []
    manifest = publish(store, folder)

    files = [name for name in line.sent if name != UPLOADED_NAME]
    assert files == ["prompt.json", "safetensors/config.json", "manifest.json"]
    assert fetch_folder(store, "m", tmp_path / "back") == manifest
    assert f"m/{UPLOADED_NAME}" not in store.list("m/")


def test_a_file_that_changed_since_is_sent_again(store: S3Store, line: Line, folder: Path, tmp_path: Path):
    line.cut_before = "prompt.json"
    with pytest.raises(StoreUnavailable):
        publish(store, folder)
    (folder / "model.gguf").write_text("another")

    line.cut_before, line.sent = "", []
    publish(store, folder)

    assert "model.gguf" in line.sent
    assert "README.md" not in line.sent
    fetch_folder(store, "m", tmp_path / "back")


def test_a_file_that_somebody_deleted_is_sent_again(store: S3Store, line: Line, folder: Path):
    line.cut_before = "prompt.json"
    with pytest.raises(StoreUnavailable):
        publish(store, folder)
    store.delete(["m/model.gguf"])

    line.cut_before, line.sent = "", []
    publish(store, folder)

    assert "model.gguf" in line.sent


@pytest.mark.parametrize("content", [b"{", b"[1]", json.dumps({"README.md": 7}).encode()])
def test_a_damaged_list_only_costs_the_upload(store: S3Store, line: Line, folder: Path, content: bytes):
    store.write(f"m/{UPLOADED_NAME}", content)

    line.sent = []
    publish(store, folder)

    assert {"README.md", "model.gguf", "prompt.json", "safetensors/config.json"} <= set(line.sent)
