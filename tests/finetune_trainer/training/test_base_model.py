from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import httpx2
import pytest
from huggingface_hub import errors
from moto import mock_aws

from finetune_contract.artifact_layout import base_model_folder
from finetune_contract.artifacts import ArtifactKind
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_trainer.artifact_files import publish_folder
from finetune_trainer.errors import BaseModelRejected, SourceUnavailable, StoreRejected
from finetune_trainer.stage_context import StageContext
from finetune_trainer.stores.s3 import S3Store
from finetune_trainer.training.base_model import fetch, resolve
from tests.finetune_trainer.training.tiny_model import context_for, spec_for

COMMIT = "c" * 40
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
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


class FakeHub:
    """Hugging Face with one model; counts what is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.downloaded: list[str] = []
        self.failure: Exception | None = None
        self.tokens: list[object] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.HfApi", self.api)
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.download)

    def api(self, token: object) -> FakeHub:
        self.tokens.append(token)
        return self

    def model_info(self, repository: str, revision: str, files_metadata: bool) -> SimpleNamespace:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        siblings = [SimpleNamespace(rfilename=name, size=len(content)) for name, content in FILES.items()]
        return SimpleNamespace(sha=COMMIT, siblings=siblings, card_data=SimpleNamespace(license="gemma"))

    def download(self, repository: str, *, local_dir: Path, allow_patterns: list[str], **_: object) -> None:
        self.downloaded += allow_patterns
        write_files(local_dir, allow_patterns)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    fake.install(monkeypatch)
    return fake


def test_a_hugging_face_model_is_pinned_to_its_commit_and_copied_into_the_store_once(
    tmp_path: Path, hub: FakeHub
):
    context = context_with("hf://google/gemma-2-2b@main", tmp_path)

    base = resolve(context)
    resolve(context)

    assert base.uri == f"hf://google/gemma-2-2b@{COMMIT}"
    assert base.licence == "gemma"
    assert sorted(hub.downloaded) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (
        context.store.read(f"{base_model_folder('google', 'gemma-2-2b', COMMIT)}/model.safetensors")
        == b"weights"
    )
    assert fetched_names(fetch(context)) == {"config.json", "model.safetensors", "tokenizer.json"}


def test_later_stages_do_not_ask_hugging_face_for_a_pinned_model(tmp_path: Path, hub: FakeHub):
    context = context_with(f"hf://google/gemma-2-2b@{COMMIT}", tmp_path)
    resolve(context)
    asked = hub.asked

    fetch(context)

    assert hub.asked == asked


def test_the_token_comes_from_the_environment_and_never_from_this_machine(tmp_path: Path, hub: FakeHub):
    resolve(context_with("hf://google/gemma-2-2b", tmp_path, {"HF_TOKEN": "hf_secret"}))
    resolve(context_with("hf://google/other", tmp_path))

    assert hub.tokens == ["hf_secret", False]


def response(status: int) -> httpx2.Response:
    return httpx2.Response(
        status, request=httpx2.Request("GET", "https://huggingface.co/api/models/google/gemma-2-2b")
    )


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (
            errors.GatedRepoError("gated", response=response(403)),
            BaseModelRejected,
            "licence must be accepted; accept it at https://huggingface.co/google/gemma-2-2b and set "
            "spec.baseModel.tokenSecretRef",
        ),
        (errors.RevisionNotFoundError("no", response=response(404)), BaseModelRejected, "no such revision"),
        (
            errors.RepositoryNotFoundError("no", response=response(404)),
            BaseModelRejected,
            "no such model; check the name",
        ),
        (
            errors.HfHubHTTPError("no", response=response(401)),
            BaseModelRejected,
            r"refuses the token \(401\)",
        ),
        (
            errors.HfHubHTTPError("no", response=response(503)),
            SourceUnavailable,
            "answered 503; it is tried again",
        ),
        (ConnectionError("no route"), SourceUnavailable, "does not answer .* put the model into S3"),
    ],
)
def test_what_hugging_face_refuses_is_said_with_its_remedy(
    tmp_path: Path, hub: FakeHub, failure: Exception, kind: type[Exception], message: str
):
    hub.failure = failure

    with pytest.raises(kind, match=message):
        resolve(context_with("hf://google/gemma-2-2b@main", tmp_path))
