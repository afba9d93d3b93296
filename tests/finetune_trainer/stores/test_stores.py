"""Both stores behave alike: a folder, and S3 as moto speaks it. A real S3 server is asked in tests/together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from pytest_httpserver import HTTPServer
from s3transfer.exceptions import S3DownloadFailedError
from werkzeug import Response

from finetune_contract.run_spec import S3StoreSpec
from finetune_trainer.errors import ArtifactDamaged, StoreRejected, StoreUnavailable
from finetune_trainer.stores.local_folder import LocalFolder
from finetune_trainer.stores.s3 import S3Store, s3_client, s3_errors
from finetune_trainer.stores.store import Store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    if request.param == "folder":
        yield LocalFolder(tmp_path / "store")
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with mock_aws():
        made = S3Store.from_spec(S3StoreSpec(bucket="models", prefix="team/chat"))
        made.client.create_bucket(Bucket="models")
        yield made


def test_a_usable_store_passes_its_check_and_keeps_nothing_of_it(store):
    store.check()

    assert store.list("") == []


def test_what_is_written_is_read_and_listed(store):
    store.write("a/b.txt", b"one")
    store.write("a/b.txt", b"two")

    assert store.read("a/b.txt") == b"two"
    assert store.list("a/") == ["a/b.txt"]
    assert store.list("b/") == []


def test_what_is_not_there_reads_as_none(store):
    assert store.read("a/b.txt") is None


def test_files_go_up_and_come_down(store, tmp_path):
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(b"model")

    store.upload("m/model", source)
    store.download("m/model", target)

    assert target.read_bytes() == b"model"


def test_downloading_what_is_not_there_is_refused_and_leaves_no_file(store, tmp_path):
    with pytest.raises(StoreRejected):
        store.download("m/model", tmp_path / "target")

    assert not list(tmp_path.glob("target*"))


def test_deleting_twice_is_no_error(store):
    store.write("a", b"x")

    store.delete(["a"])
    store.delete(["a"])

    assert store.list("") == []


def test_the_prefix_is_part_of_the_address_and_not_of_the_keys(store):
    store.write("a/b", b"x")

    assert store.uri("a/b").endswith("/a/b")
    assert store.list("a") == ["a/b"]


def test_a_missing_bucket_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with (
        mock_aws(),
        pytest.raises(StoreRejected, match=r"spec.store.s3: s3://nowhere: .*spec.store.s3.bucket"),
    ):
        S3Store.from_spec(S3StoreSpec(bucket="nowhere")).check()


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("InvalidBucketName", 400, "correct spec.store.s3.bucket"),
        ("AuthorizationHeaderMalformed", 400, "correct spec.store.s3.region"),
        ("IllegalLocationConstraintException", 400, "correct spec.store.s3.region"),
        ("PermanentRedirect", 301, "correct spec.store.s3.region"),
        ("RequestTimeTooSkewed", 403, "set the clock of the node"),
    ],
)
def test_the_check_names_the_cause_that_an_answer_without_a_body_leaves_out(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, code: str, status: int, words: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    headers = {"x-amz-bucket-region": "eu-west-1"}
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
    httpserver.expect_request("/models", method="HEAD").respond_with_data("", status, headers)
    httpserver.expect_request("/models", method="GET").respond_with_data(body, status, headers)
    store = S3Store.from_spec(S3StoreSpec(bucket="models", endpoint=httpserver.url_for("")))

    with pytest.raises(StoreRejected, match=rf"spec.store.s3: s3://models: .*{words}.* \({code}\)"):
        store.check()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"region": "us east 1"}, r"spec.store.s3.region: 'us east 1' .*such as us-east-1"),
        (
            {"endpoint": "http://my_store:9000"},
            r"spec.store.s3.endpoint: 'http://my_store:9000' .*underscore",
        ),
    ],
)
def test_a_region_or_an_address_that_no_client_takes_is_refused(changes, words):
    with pytest.raises(StoreRejected, match=words):
        S3Store.from_spec(S3StoreSpec(bucket="models", **changes))


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("NoSuchBucket", 404, StoreRejected),
        ("AccessDenied", 403, StoreRejected),
        ("SignatureDoesNotMatch", 403, StoreRejected),
        ("MalformedPolicy", 400, StoreRejected),
        ("SlowDown", 503, StoreUnavailable),
        ("InternalError", 500, StoreUnavailable),
    ],
)
def test_refusals_are_told_from_passing_failures(code, status, error):
    answer = ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
    )  # type: ignore[typeddict-item]

    with pytest.raises(error, match="s3://models/key"), s3_errors("s3://models/key"):
        raise answer


def test_a_bucket_name_that_no_store_takes_is_refused():
    store = S3Store(s3_client(None, "us-east-1", ("key", "secret")), "a bucket", "")

    with pytest.raises(StoreRejected, match=r"s3://a bucket/x: .*correct it"):
        store.read("x")


def test_a_server_that_is_down_is_unavailable(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = S3Store.from_spec(S3StoreSpec(bucket="models", endpoint="http://127.0.0.1:9"))

    with pytest.raises(StoreUnavailable, match="s3://models"):
        store.check()


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd"])
def test_a_key_cannot_lead_out_of_the_workspace(tmp_path, key):
    with pytest.raises(StoreRejected, match="leads out of the workspace"):
        LocalFolder(tmp_path / "store").write(key, b"x")


def test_a_workspace_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "store").write_text("x")

    with pytest.raises(StoreRejected, match=r"workspace .*choose another with --workspace"):
        LocalFolder(tmp_path / "store").check()


def test_a_download_that_breaks_off_again_and_again_is_unavailable(
    httpserver: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    headers = {"Content-Length": "100", "ETag": '"1"'}
    httpserver.expect_request("/models/m", method="HEAD").respond_with_response(
        Response(iter([]), headers=headers)
    )
    httpserver.expect_request("/models/m", method="GET").respond_with_response(
        Response(iter([b"half"]), headers=headers)
    )
    store = S3Store.from_spec(S3StoreSpec(bucket="models", endpoint=httpserver.url_for("")))

    with pytest.raises(StoreUnavailable, match="s3://models/m"):
        store.download("m", tmp_path / "m")


def test_a_folder_is_not_kept_full_of_what_killed_processes_left(tmp_path: Path):
    """What a process that lives is writing stays: here this test's own parent."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / f"model.gguf.{ended.pid}.partial").write_bytes(b"half")
    (folder / f"model.gguf.{os.getppid()}.partial").write_bytes(b"half")

    LocalFolder(folder).write("model.gguf", b"whole")

    assert {path.name for path in folder.iterdir()} == {"model.gguf", f"model.gguf.{os.getppid()}.partial"}
    assert LocalFolder(folder).list("") == ["model.gguf"]


def test_an_object_that_is_missing_is_damage_and_one_that_is_refused_is_not(store, tmp_path):
    with pytest.raises(ArtifactDamaged, match="missing-object"):
        store.download("missing-object", tmp_path / "here")


def test_an_object_that_is_replaced_while_it_is_fetched_is_fetched_again_later():
    with pytest.raises(StoreUnavailable, match="did not match expected ETag"), s3_errors("s3://models/key"):
        raise S3DownloadFailedError("Contents of stored object did not match expected ETag")


def test_keys_out_of_files_are_signed_with_as_without_their_last_newline(httpserver, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret\n")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session\n")
    httpserver.expect_request("/models/a").respond_with_data(b"one")

    assert (
        S3Store.from_spec(S3StoreSpec(bucket="models", endpoint=httpserver.url_for(""))).read("a") == b"one"
    )
    headers = httpserver.log[0][0].headers
    assert "Credential=key/" in headers["Authorization"]
    assert headers["X-Amz-Security-Token"] == "session"


def test_an_access_key_that_no_header_can_carry_is_refused_and_not_shown(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-one\nkey-of-two")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    with pytest.raises(
        StoreRejected, match=r"spec.store.s3.credentialsSecretRef: the access key id"
    ) as caught:
        S3Store.from_spec(S3StoreSpec(bucket="models"))

    assert "key-of-one" not in str(caught.value)
