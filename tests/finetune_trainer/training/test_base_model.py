from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from finetune_contract.artifacts import ArtifactKind
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_trainer.artifact_files import publish_folder
from finetune_trainer.dataset.build import resolve_base_model
from finetune_trainer.errors import BaseModelRejected, Preempted, StoreRejected, WorkspaceUnusable
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.s3 import S3Store
from finetune_trainer.training.base_model import fetch, resolve
from finetune_trainer.workspace_errors import TRAIN_SCRATCH
from tests.finetune_trainer.training.tiny_model import context_for, spec_for

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "tokenizer.py": b"code",
    "modeling_tiny.py": b"code",
    "README.md": b"words",
    "onnx/model.onnx": b"other",
}


def context_with(uri: str, folder: Path, environment: dict[str, str] | None = None) -> StageContext:
    spec = FineTuneRunSpec.model_validate({**spec_for(folder).to_wire(), "baseModel": {"uri": uri}})
    return dataclasses.replace(context_for(folder, spec), environment=environment or {})


def write_files(folder: Path, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
    return folder


def fetched_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_folder_is_fetched_without_what_could_run_code(tmp_path: Path):
    source = write_files(tmp_path / "source", list(FILES))

    folder = fetch(context_with(source.as_uri(), tmp_path))

    assert fetched_names(folder) == {"config.json", "model.safetensors", "tokenizer.json"}


def test_the_digest_of_a_folder_follows_its_content(tmp_path: Path):
    source = write_files(tmp_path / "source", ["config.json", "model.safetensors"])
    context = context_with(source.as_uri(), tmp_path)
    before = resolve(context).digest

    assert resolve(context).digest == before
    (source / "model.safetensors").write_bytes(b"WEIGHTS")
    assert resolve(context).digest != before


def test_a_second_fetch_copies_nothing_and_a_changed_model_is_fetched_anew(tmp_path: Path):
    source = write_files(tmp_path / "source", ["config.json", "model.safetensors"])
    context = context_with(source.as_uri(), tmp_path)
    copy = fetch(context) / "config.json"
    copy.write_bytes(b"left alone")

    fetch(context)
    assert copy.read_bytes() == b"left alone"

    (source / "model.safetensors").write_bytes(b"other")
    fetch(context)
    assert copy.read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no files"),
        (["model.safetensors"], "holds no config.json"),
        (["config.json"], r"holds no \*.safetensors; upload"),
        (["config.json", "pytorch_model.bin"], "a pickle can run code when it is loaded"),
    ],
)
def test_a_folder_that_is_no_safe_model_is_refused(tmp_path: Path, names: list[str], message: str):
    (tmp_path / "source").mkdir()
    source = write_files(tmp_path / "source", names)

    with pytest.raises(BaseModelRejected, match=f"spec.baseModel.uri: .*{message}"):
        resolve(context_with(source.as_uri(), tmp_path))


def test_a_folder_that_does_not_exist_is_refused_with_the_form_to_write(tmp_path: Path):
    with pytest.raises(BaseModelRejected, match="is no folder; correct the path"):
        resolve(context_with((tmp_path / "absent").as_uri(), tmp_path))


def test_weights_that_are_only_in_a_folder_below_are_no_model(tmp_path: Path):
    source = tmp_path / "source"
    (source / "original").mkdir(parents=True)
    (source / "config.json").write_bytes(b"{}")
    (source / "original" / "model.safetensors").write_bytes(b"weights")

    with pytest.raises(BaseModelRejected, match=r"holds no \*.safetensors"):
        resolve(context_with(source.as_uri(), tmp_path))


def sharded(folder: Path, shards: list[str], index: bytes) -> Path:
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors.index.json").write_bytes(index)
    for shard in shards:
        (folder / shard).write_bytes(b"weights")
    return folder


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[1]}}).encode()


def test_a_model_in_shards_is_fetched_whole(tmp_path: Path):
    source = sharded(tmp_path / "source", SHARDS, INDEX)

    assert fetched_names(fetch(context_with(source.as_uri(), tmp_path))) >= set(SHARDS)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (INDEX, r"names model-00002-of-00002.safetensors, which is not there \(1 of 2 missing\)"),
        (b"[]", "is no index of weights"),
        (b"{", "is no index of weights"),
    ],
)
def test_a_model_that_lacks_a_shard_is_refused_before_it_is_loaded(
    tmp_path: Path, index: bytes, message: str
):
    source = sharded(tmp_path / "source", SHARDS[:1], index)

    with pytest.raises(BaseModelRejected, match=f"spec.baseModel.uri: .*{message}"):
        fetch(context_with(source.as_uri(), tmp_path))


def test_of_weights_that_are_there_twice_those_that_transformers_reads_are_fetched(
    tmp_path: Path, bucket: Any
):
    left_over = ["model-00003-of-00003.safetensors", "consolidated.safetensors"]
    source = sharded(tmp_path / "source", [*SHARDS, *left_over], INDEX)
    for path in source.iterdir():
        bucket.put_object(Bucket="elsewhere", Key=f"base/tiny/{path.name}", Body=path.read_bytes())
    publish_folder(S3Store(bucket, "elsewhere", "base"), "made", source, ArtifactKind.BASE_MODEL, {})

    for number, uri in enumerate([source.as_uri(), "s3://elsewhere/base/tiny/", "s3://elsewhere/base/made/"]):
        folder = fetch(context_with(uri, tmp_path / str(number)))
        assert {path.name for path in folder.glob("*.safetensors")} == set(SHARDS)

    (source / "model.safetensors").write_bytes(b"whole")
    folder = fetch(context_with(source.as_uri(), tmp_path / "again"))
    assert fetched_names(folder) == {"config.json", "model.safetensors"}


def test_weights_under_names_that_transformers_does_not_read_are_refused(tmp_path: Path):
    source = sharded(tmp_path / "source", ["consolidated.safetensors"], INDEX)
    (source / "model.safetensors.index.json").unlink()

    with pytest.raises(
        BaseModelRejected, match=r"neither model.safetensors nor model.safetensors.index.json"
    ):
        resolve(context_with(source.as_uri(), tmp_path))


def test_a_fetch_that_is_told_to_stop_ends_between_two_files(tmp_path: Path):
    source = write_files(tmp_path / "source", ["config.json", "model.safetensors"])
    context = context_with(source.as_uri(), tmp_path)

    with pytest.raises(Preempted, match="told to stop while the base model was fetched"):
        fetch(dataclasses.replace(context, stop_requested=lambda: True))

    assert fetched_names(fetch(context)) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(("scratch", "field"), [({}, "other"), ({"scratch": TRAIN_SCRATCH}, "train")])
def test_a_disk_that_fills_up_is_said_with_the_field_of_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scratch: dict[str, str], field: str
):
    source = write_files(tmp_path / "source", ["config.json", "model.safetensors"])
    context = context_with(source.as_uri(), tmp_path)

    def no_room(_: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(shutil, "copyfile", no_room)

    with pytest.raises(WorkspaceUnusable, match=rf"No space left.*raise spec\.resources\.{field}\.scratch"):
        fetch(context, **scratch)


def test_too_little_room_is_said_before_a_file_is_fetched(tmp_path: Path):
    source = write_files(tmp_path / "source", ["config.json", "model.safetensors"])
    context = context_with(source.as_uri(), tmp_path)
    base = resolve(context)
    huge = dataclasses.replace(base, files=(dataclasses.replace(base.files[0], size=1 << 60),))

    with pytest.raises(WorkspaceUnusable, match=r"the base model needs 1073741824\.0 GiB, .* are free"):
        fetch(context, huge)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="elsewhere")
        yield client


def put(client: Any, names: list[str]) -> None:
    for name in names:
        client.put_object(Bucket="elsewhere", Key=f"base/tiny/{name}", Body=FILES[name])


def test_a_model_in_another_bucket_than_the_store_is_fetched(tmp_path: Path, bucket: Any):
    put(bucket, list(FILES))

    folder = fetch(context_with("s3://elsewhere/base/tiny/", tmp_path))

    assert fetched_names(folder) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_the_digest_in_a_bucket_follows_the_listing(tmp_path: Path, bucket: Any):
    put(bucket, ["config.json", "model.safetensors"])
    context = context_with("s3://elsewhere/base/tiny/", tmp_path)
    before = resolve(context).digest

    assert resolve(context).digest == before
    bucket.put_object(Bucket="elsewhere", Key="base/tiny/model.safetensors", Body=b"WEIGHTS")
    assert resolve(context).digest != before


def test_a_manifest_beside_the_model_is_held_to_its_checksums(tmp_path: Path, bucket: Any):
    source = write_files(tmp_path / "source", ["config.json", "model.safetensors"])
    publish_folder(S3Store(bucket, "elsewhere", "base"), "tiny", source, ArtifactKind.BASE_MODEL, {})
    context = context_with("s3://elsewhere/base/tiny/", tmp_path)
    fetch(context)

    bucket.put_object(Bucket="elsewhere", Key="base/tiny/model.safetensors", Body=b"WEIGHTS")
    (tmp_path / "work" / "base-model" / ".fetched").unlink()

    with pytest.raises(StoreRejected, match=r"model.safetensors has sha256 .* was announced"):
        fetch(context)


def test_an_empty_prefix_and_a_missing_bucket_are_told_apart(tmp_path: Path, bucket: Any):
    with pytest.raises(BaseModelRejected, match="s3://elsewhere/nothing/ holds no files"):
        resolve(context_with("s3://elsewhere/nothing/", tmp_path))
    with pytest.raises(StoreRejected, match=r"spec.baseModel.uri: s3://absent/x/: the bucket does not exist"):
        resolve(context_with("s3://absent/x/", tmp_path))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            b'{"quantization_config": {"quant_method": "bitsandbytes"}}',
            r"quantised \(bitsandbytes\).* 16-bit form",
        ),
        (b'{"quantization_config": {"bits": 4}}', r"quantised \(quantization_config in config.json\)"),
        (b"[]", "config.json is no JSON object; upload it anew"),
    ],
)
def test_the_dataset_stage_refuses_a_model_that_is_published_quantised(
    tmp_path: Path, bucket: Any, config: bytes, words: str
):
    put(bucket, ["config.json", "model.safetensors"])
    context = context_with("s3://elsewhere/base/tiny/", tmp_path)
    resolve_base_model(context)
    bucket.put_object(Bucket="elsewhere", Key="base/tiny/config.json", Body=config)

    with pytest.raises(BaseModelRejected, match=f"spec.baseModel.uri: s3://elsewhere/base/tiny/.*{words}"):
        resolve_base_model(context)


def sums(names: list[str], lead: str = "") -> bytes:
    return "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  {lead}{name}\n" for name in names).encode()


@pytest.mark.parametrize("lead", ["", "./"])
def test_checksums_beside_the_model_are_held_to(tmp_path: Path, bucket: Any, lead: str):
    put(bucket, ["config.json", "model.safetensors"])
    content = sums(["config.json", "model.safetensors"], lead)
    bucket.put_object(Bucket="elsewhere", Key="base/tiny/SHA256SUMS", Body=content)
    context = context_with("s3://elsewhere/base/tiny/", tmp_path)
    fetch(context)
    before = resolve(context).digest

    bucket.put_object(Bucket="elsewhere", Key="base/tiny/model.safetensors", Body=b"WEIGHTS")
    (tmp_path / "work" / "base-model" / ".fetched").unlink()

    assert resolve(context).digest == before
    with pytest.raises(StoreRejected, match=r"model.safetensors has sha256 .* was announced"):
        fetch(context)


def test_checksums_that_leave_a_file_out_are_refused_with_the_command(tmp_path: Path, bucket: Any):
    put(bucket, ["config.json", "model.safetensors"])
    bucket.put_object(Bucket="elsewhere", Key="base/tiny/SHA256SUMS", Body=sums(["config.json"]))

    with pytest.raises(
        BaseModelRejected, match=r"no sha256 of model.safetensors \(1 of 2 .*sha256sum \* > SHA256SUMS"
    ):
        resolve(context_with("s3://elsewhere/base/tiny/", tmp_path))


def test_a_model_without_checksums_is_taken_and_said(
    tmp_path: Path, bucket: Any, caplog: pytest.LogCaptureFixture
):
    put(bucket, ["config.json", "model.safetensors"])

    with caplog.at_level(logging.WARNING):
        resolve(context_with("s3://elsewhere/base/tiny/", tmp_path))

    assert "base model without checksums; write SHA256SUMS beside it" in caplog.text


def test_a_manifest_that_names_more_than_is_there_is_refused(tmp_path: Path, bucket: Any):
    source = write_files(tmp_path / "source", ["config.json", "model.safetensors", "tokenizer.json"])
    publish_folder(S3Store(bucket, "elsewhere", "base"), "tiny", source, ArtifactKind.BASE_MODEL, {})
    bucket.delete_object(Bucket="elsewhere", Key="base/tiny/tokenizer.json")

    with pytest.raises(BaseModelRejected, match=r"holds no tokenizer.json, and its manifest.json names it"):
        resolve(context_with("s3://elsewhere/base/tiny/", tmp_path))


def test_a_manifest_does_not_let_code_in(tmp_path: Path, bucket: Any):
    source = write_files(tmp_path / "source", list(FILES))
    publish_folder(S3Store(bucket, "elsewhere", "base"), "tiny", source, ArtifactKind.BASE_MODEL, {})

    folder = fetch(context_with("s3://elsewhere/base/tiny/", tmp_path))

    assert fetched_names(folder) == {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_manifest_of_something_else_counts_for_nothing(tmp_path: Path, bucket: Any):
    put(bucket, ["config.json", "model.safetensors"])
    bucket.put_object(Bucket="elsewhere", Key="base/tiny/manifest.json", Body=b'{"name": "an app"}')

    folder = fetch(context_with("s3://elsewhere/base/tiny/", tmp_path))

    assert fetched_names(folder) == {"config.json", "model.safetensors"}
