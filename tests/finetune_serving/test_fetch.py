from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from finetune_contract.artifacts import ArtifactKind, FileEntry, Manifest
from finetune_contract.stage_protocol import FetchExitCode
from finetune_serving import fetch, stores
from finetune_serving.errors import (
    AccessDenied,
    ChecksumMismatch,
    FetchError,
    ForbiddenFile,
    NotFound,
    SizeMismatch,
    StoreUnavailable,
    VolumeFull,
)
from finetune_serving.fetch import fetch_model
from finetune_serving.model_cache import ModelCache
from finetune_serving.stores import LocalFolder, S3Folder, open_store

WEIGHTS = bytes(range(256)) * 900
CARD = b"# A model\n"


def entry(path: str, content: bytes, serving: bool = True) -> FileEntry:
    return FileEntry(
        path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest(), serving=serving
    )


def a_manifest(*entries: FileEntry) -> Manifest:
    return Manifest(kind=ArtifactKind.MODEL, files=list(entries))


GOOD = a_manifest(
    entry("model.gguf", WEIGHTS),
    entry("README.md", CARD),
    entry("safetensors/w.safetensors", b"big", serving=False),
)


def publish(folder: Path, manifest: Manifest = GOOD, **changed: bytes) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.gguf").write_bytes(changed.get("weights", WEIGHTS))
    (folder / "README.md").write_bytes(CARD)
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return manifest.sha256()


class CountingStore:
    """A store that remembers what was read, and may break off."""

    def __init__(self, inner: stores.ModelStore, break_at: int | None = None) -> None:
        self.inner = inner
        self.break_at = break_at
        self.reads: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def describe(self, name: str) -> str:
        return self.inner.describe(name)

    def read_small(self, name: str) -> bytes:
        self.reads.append((name, 0))
        return self.inner.read_small(name)

    def read_range(self, name: str, start: int, length: int, expected_size: int) -> bytes:
        with self._lock:
            self.reads.append((name, start))
        if self.break_at is not None and start >= self.break_at:
            raise StoreUnavailable("the network went away")
        return self.inner.read_range(name, start, length, expected_size)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PART_BYTES", 50_000)


@pytest.mark.usefixtures("small_parts")
def test_a_model_is_fetched_from_s3_in_ranges_and_only_what_is_served(s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket="models", Key="run/model/manifest.json", Body=GOOD.to_bytes())
    s3.put_object(Bucket="models", Key="run/model/model.gguf", Body=WEIGHTS)
    s3.put_object(Bucket="models", Key="run/model/README.md", Body=CARD)
    store = CountingStore(open_store("s3://models/run/model/"))

    result = fetch_model(store, GOOD.sha256(), ModelCache(tmp_path))

    assert (tmp_path / "current" / "model.gguf").read_bytes() == WEIGHTS
    assert {path.name for path in result.folder.iterdir()} == {
        "model.gguf",
        "README.md",
        "manifest.json",
        ".whole",
    }
    assert sorted(start for name, start in store.reads if name == "model.gguf") == [
        0,
        50_000,
        100_000,
        150_000,
        200_000,
    ]
    assert result.downloaded_bytes == len(WEIGHTS) + len(CARD)


def test_a_model_that_is_there_costs_no_request(tmp_path: Path) -> None:
    digest = publish(tmp_path / "published")
    fetch_model(LocalFolder(tmp_path / "published"), digest, ModelCache(tmp_path / "cache"))
    store = CountingStore(LocalFolder(tmp_path / "gone"))

    result = fetch_model(store, digest, ModelCache(tmp_path / "cache"))

    assert result.cached
    assert store.reads == []


def test_current_follows_the_model_that_was_asked_for_last(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "cache")
    first = publish(tmp_path / "one")
    second_manifest = a_manifest(entry("model.gguf", WEIGHTS))
    second = publish(tmp_path / "two", second_manifest)
    fetch_model(LocalFolder(tmp_path / "one"), first, cache)
    fetch_model(LocalFolder(tmp_path / "two"), second, cache)

    fetch_model(LocalFolder(tmp_path / "one"), first, cache)

    assert os.readlink(tmp_path / "cache" / "current") == f"sha256-{first}"


@pytest.mark.usefixtures("small_parts")
def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    digest = publish(tmp_path / "published")
    cache = ModelCache(tmp_path / "cache")
    with pytest.raises(StoreUnavailable):
        fetch_model(CountingStore(LocalFolder(tmp_path / "published"), break_at=150_000), digest, cache)
    assert not cache.is_whole(digest)
    store = CountingStore(LocalFolder(tmp_path / "published"))

    fetch_model(store, digest, cache)

    assert min(start for name, start in store.reads if name == "model.gguf") == 150_000
    assert (cache.folder(digest) / "model.gguf").read_bytes() == WEIGHTS


@pytest.mark.parametrize("left", [b"not the beginning", b"X" + WEIGHTS[1:], WEIGHTS[:1000], WEIGHTS])
def test_what_an_earlier_try_has_left_damaged_is_downloaded_once_more_from_the_start(
    tmp_path: Path, left: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    digest = publish(tmp_path / "published")
    cache = ModelCache(tmp_path / "cache")
    cache.folder(digest).mkdir(parents=True)
    (cache.folder(digest) / "model.gguf.partial").write_bytes(left)

    with caplog.at_level("WARNING", logger="finetune_serving.fetch"):
        fetch_model(LocalFolder(tmp_path / "published"), digest, cache)

    assert (cache.folder(digest) / "model.gguf").read_bytes() == WEIGHTS
    assert cache.is_whole(digest)
    assert ("damaged" in caplog.text) is not WEIGHTS.startswith(left)


@pytest.mark.usefixtures("small_parts")
def test_a_file_that_is_wrong_in_the_store_is_downloaded_no_third_time(tmp_path: Path) -> None:
    digest = publish(tmp_path / "published", weights=b"X" + WEIGHTS[1:])
    cache = ModelCache(tmp_path / "cache")
    cache.folder(digest).mkdir(parents=True)
    (cache.folder(digest) / "model.gguf.partial").write_bytes(b"damaged" + WEIGHTS[7:50_000])
    store = CountingStore(LocalFolder(tmp_path / "published"))

    with pytest.raises(ChecksumMismatch, match="the file was thrown away"):
        fetch_model(store, digest, cache)

    assert [start for name, start in store.reads if name == "model.gguf"].count(50_000) == 2
    assert not list(cache.folder(digest).glob("model.gguf*"))


def test_changed_weights_are_refused_and_leave_no_file_behind(tmp_path: Path) -> None:
    digest = publish(tmp_path / "published", weights=b"X" + WEIGHTS[1:])
    cache = ModelCache(tmp_path / "cache")

    with pytest.raises(ChecksumMismatch, match=r"model\.gguf: expected sha256 .* found"):
        fetch_model(LocalFolder(tmp_path / "published"), digest, cache)

    assert not list(cache.folder(digest).glob("model.gguf*"))
    assert not cache.is_whole(digest)


def test_a_replaced_manifest_is_refused(tmp_path: Path) -> None:
    publish(tmp_path / "published")

    with pytest.raises(ChecksumMismatch, match="pinned by MODEL_MANIFEST_SHA256"):
        fetch_model(LocalFolder(tmp_path / "published"), "0" * 64, ModelCache(tmp_path / "cache"))


def test_a_pin_that_is_no_digest_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    store = CountingStore(LocalFolder(tmp_path))

    with pytest.raises(ChecksumMismatch, match="64 hex digits"):
        fetch_model(store, "", ModelCache(tmp_path / "cache"))

    assert store.reads == []


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    digest = publish(tmp_path / "published", weights=WEIGHTS + b"more")

    with pytest.raises(SizeMismatch, match=f"expected {len(WEIGHTS)} bytes, found {len(WEIGHTS) + 4}"):
        fetch_model(LocalFolder(tmp_path / "published"), digest, ModelCache(tmp_path / "cache"))


def test_an_object_of_another_size_is_refused(s3: Any, tmp_path: Path) -> None:
    manifest = a_manifest(entry("model.gguf", WEIGHTS))
    s3.put_object(Bucket="models", Key="m/manifest.json", Body=manifest.to_bytes())
    s3.put_object(Bucket="models", Key="m/model.gguf", Body=WEIGHTS + b"more")

    with pytest.raises(SizeMismatch, match=r"s3://models/m/model\.gguf"):
        fetch_model(open_store("s3://models/m"), manifest.sha256(), ModelCache(tmp_path))


@pytest.mark.parametrize("path", ["run.py", "weights.bin", "model.gguf.sh", "noending"])
def test_a_file_that_could_be_a_program_is_refused(path: str, tmp_path: Path) -> None:
    manifest = a_manifest(entry(path, WEIGHTS))
    digest = publish(tmp_path / "published", manifest)

    with pytest.raises(ForbiddenFile, match="suffix that is not served"):
        fetch_model(LocalFolder(tmp_path / "published"), digest, ModelCache(tmp_path / "cache"))


@pytest.mark.parametrize(
    "path", ["../outside.gguf", "/etc/model.gguf", "a/../../model.gguf", "a\\b.gguf", ".whole.gguf"]
)
def test_a_path_outside_the_folder_is_refused(path: str, tmp_path: Path) -> None:
    manifest = a_manifest(entry(path, WEIGHTS))
    digest = publish(tmp_path / "published", manifest)

    with pytest.raises(ForbiddenFile, match="leads outside"):
        fetch_model(LocalFolder(tmp_path / "published"), digest, ModelCache(tmp_path / "cache"))


def test_a_manifest_without_a_file_to_serve_is_refused(tmp_path: Path) -> None:
    manifest = a_manifest(entry("model.gguf", WEIGHTS, serving=False))
    digest = publish(tmp_path / "published", manifest)

    with pytest.raises(NotFound, match="no file is marked `serving`"):
        fetch_model(LocalFolder(tmp_path / "published"), digest, ModelCache(tmp_path / "cache"))


def test_a_manifest_of_a_later_version_is_named_as_such(tmp_path: Path) -> None:
    content = b'{"kind": "model", "files": [], "invented": 1}'
    (tmp_path / "manifest.json").write_bytes(content)

    with pytest.raises(ForbiddenFile, match="use the serving image of the release"):
        fetch_model(
            LocalFolder(tmp_path), hashlib.sha256(content).hexdigest(), ModelCache(tmp_path / "cache")
        )


def test_a_full_volume_is_noticed_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = publish(tmp_path / "published")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("finetune_serving.fetch.shutil.disk_usage", lambda _: usage(10, 10, 1024 * 1024))
    store = CountingStore(LocalFolder(tmp_path / "published"))

    with pytest.raises(VolumeFull, match=r"1\.0 MiB are free; raise the sizeLimit"):
        fetch_model(store, digest, ModelCache(tmp_path / "cache"))

    assert [name for name, _ in store.reads] == ["manifest.json"]


def test_a_missing_bucket_and_a_missing_manifest_are_told_apart(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no bucket 'nowhere'"):
        fetch_model(open_store("s3://nowhere/m/"), "0" * 64, ModelCache(tmp_path))
    with pytest.raises(NotFound, match=r"s3://models/m/manifest\.json: there is no such object"):
        fetch_model(open_store("s3://models/m/"), "0" * 64, ModelCache(tmp_path))


def test_a_store_that_refuses_is_asked_once(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    httpserver.expect_request("/models/m/manifest.json").respond_with_data(
        "<Error><Code>AccessDenied</Code></Error>", status=403
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", httpserver.url_for("/"))

    with pytest.raises(AccessDenied, match="403 AccessDenied; the credentials need s3:GetObject") as caught:
        S3Folder("models", "m").read_small("manifest.json")

    assert len(httpserver.log) == 1
    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "status", "error", "words"),
    [
        ("RequestTimeTooSkewed", 403, AccessDenied, "set the clock of the node"),
        ("AuthorizationHeaderMalformed", 400, AccessDenied, "set AWS_DEFAULT_REGION"),
        ("PermanentRedirect", 301, AccessDenied, "set AWS_DEFAULT_REGION"),
        ("InvalidBucketName", 400, NotFound, "check MODEL_URI"),
    ],
)
def test_a_refusal_that_no_right_would_cure_names_its_own_remedy(
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    s3: Any,
    code: str,
    status: int,
    error: type[FetchError],
    words: str,
) -> None:
    httpserver.expect_request("/models/m/manifest.json").respond_with_data(
        f"<Error><Code>{code}</Code></Error>", status, {"x-amz-bucket-region": "eu-west-1"}
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", httpserver.url_for("/"))

    with pytest.raises(error, match=rf"{code}.*{words}"):
        S3Folder("models", "m", sleep=lambda _: None).read_small("manifest.json")


def test_a_region_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, s3: Any) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us east 1")

    with pytest.raises(NotFound, match="AWS_DEFAULT_REGION is no region"):
        S3Folder("models", "m").read_small("manifest.json")


def test_a_store_with_a_hiccup_is_asked_again(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    answers = iter([Response(status=503), Response(status=500), Response(b"whole")])
    httpserver.expect_request("/models/m/manifest.json").respond_with_handler(lambda _: next(answers))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", httpserver.url_for("/"))
    pauses: list[float] = []

    content = S3Folder("models", "m", sleep=pauses.append).read_small("manifest.json")

    assert content == b"whole"
    assert pauses == [0.5, 1.0]


def test_a_store_that_never_answers_is_given_up(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")

    with pytest.raises(StoreUnavailable, match="check AWS_ENDPOINT_URL_S3"):
        S3Folder("models", "m", sleep=lambda _: None).read_small("manifest.json")


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://models/team/run/", "s3://models/team/run/model.gguf"),
        ("s3://models", "s3://models/model.gguf"),
        ("s3://models/team#1/what?/50%25", "s3://models/team#1/what?/50%25/model.gguf"),
        ("file:///models/team%231", "/models/team#1/model.gguf"),
    ],
)
def test_every_prefix_that_a_store_may_have_is_kept_whole(uri: str, place: str) -> None:
    assert open_store(uri).describe("model.gguf") == place


@pytest.mark.parametrize(
    "uri", ["models/x", "http://host/x", "s3:///x", "s3://[x/y", "file://other-host/x", "file://[x/y"]
)
def test_another_kind_of_address_is_refused(uri: str) -> None:
    with pytest.raises(NotFound, match="expected s3://BUCKET/PREFIX/ or file:///FOLDER/"):
        open_store(uri)


def test_two_downloads_into_one_volume_do_not_meet(tmp_path: Path) -> None:
    digest = publish(tmp_path / "published")
    cache = ModelCache(tmp_path / "cache")
    cache.root.mkdir()
    held = (cache.root / ".lock").open("a")
    fcntl.flock(held, fcntl.LOCK_EX)
    waited = threading.Event()

    def release() -> None:
        waited.set()
        held.close()

    with cache.writing(on_wait=release):
        assert waited.is_set()
    assert fetch_model(LocalFolder(tmp_path / "published"), digest, cache).downloaded_bytes > 0


def test_progress_tells_mebibytes_and_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    now = iter([0.0, 1.0, 4.0, 5.0])
    progress = fetch.ProgressLog(4 * 1024 * 1024, clock=lambda: next(now))

    progress.add(1024 * 1024)
    progress.add(1024 * 1024)

    assert caplog.messages == ["downloading: 2.0 of 4.0 MiB, 0.5 MiB/s, eta_seconds=4"]


ENDS: list[tuple[str, Callable[[Path], dict[str, str]], FetchExitCode]] = [
    ("no model yet", lambda _: {"MODEL_URI": ""}, FetchExitCode.OK),
    (
        "good",
        lambda folder: {"MODEL_URI": folder.as_uri(), "MODEL_MANIFEST_SHA256": publish(folder)},
        FetchExitCode.OK,
    ),
    (
        "good, from files that end with a newline",
        lambda folder: {
            "MODEL_URI": f"{folder.as_uri()}\n",
            "MODEL_MANIFEST_SHA256": f"{publish(folder)}\n",
        },
        FetchExitCode.OK,
    ),
    (
        "missing",
        lambda folder: {"MODEL_URI": (folder / "no").as_uri(), "MODEL_MANIFEST_SHA256": "0" * 64},
        FetchExitCode.NOT_FOUND,
    ),
    (
        "changed",
        lambda folder: {
            "MODEL_URI": folder.as_uri(),
            "MODEL_MANIFEST_SHA256": publish(folder, weights=WEIGHTS[::-1]),
        },
        FetchExitCode.CHECKSUM_MISMATCH,
    ),
    (
        "cut off",
        lambda folder: {
            "MODEL_URI": folder.as_uri(),
            "MODEL_MANIFEST_SHA256": publish(folder, weights=WEIGHTS[:-1]),
        },
        FetchExitCode.SIZE_MISMATCH,
    ),
    (
        "program",
        lambda folder: {
            "MODEL_URI": folder.as_uri(),
            "MODEL_MANIFEST_SHA256": publish(folder, a_manifest(entry("x.so", b""))),
        },
        FetchExitCode.FORBIDDEN_FILE,
    ),
]


def test_an_endpoint_without_a_scheme_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "minio:9000")

    with pytest.raises(NotFound, match=r"AWS_ENDPOINT_URL_S3.*Invalid endpoint: minio:9000"):
        open_store("s3://models/run/").read_small("manifest.json")


def test_pods_that_share_a_volume_may_point_to_their_models_at_once(tmp_path: Path) -> None:
    cache, problems = ModelCache(tmp_path), []

    def point(digest: str) -> None:
        try:
            for _ in range(200):
                cache.point_to(digest)
        except OSError as error:
            problems.append(error)

    threads = [threading.Thread(target=point, args=(letter * 64,)) for letter in "abcd" * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert [path.name for path in tmp_path.iterdir()] == ["current"]


def test_a_whole_model_on_a_volume_that_cannot_be_changed_is_a_fetch_error(tmp_path: Path) -> None:
    digest = publish(tmp_path / "published")
    cache = ModelCache(tmp_path / "cache")
    fetch_model(LocalFolder(tmp_path / "published"), digest, cache)
    (cache.root / "current").unlink()
    (cache.root / "current").mkdir()

    with pytest.raises(VolumeFull, match="writable for uid"):
        fetch_model(LocalFolder(tmp_path / "published"), digest, cache)


@pytest.mark.parametrize(("name", "prepare", "code"), ENDS, ids=[name for name, _, _ in ENDS])
def test_the_exit_code_and_the_last_words_say_how_it_ended(
    name: str,
    prepare: Callable[[Path], dict[str, str]],
    code: FetchExitCode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finetune_serving.fetch.signal.signal", lambda *_: None)
    last_words = tmp_path / "termination-log"
    last_words.touch()
    monkeypatch.setenv("TERMINATION_MESSAGE_PATH", str(last_words))
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "cache"))
    for variable, value in prepare(tmp_path / "published").items():
        monkeypatch.setenv(variable, value)

    with pytest.raises(SystemExit) as ended:
        fetch.main()

    assert ended.value.code == code
    assert last_words.read_text().partition(": ")[0] == ("" if code is FetchExitCode.OK else code.name)


def test_every_exit_code_but_success_has_its_error() -> None:
    classes = {error.exit_code for error in FetchError.__subclasses__()}

    assert classes == set(FetchExitCode) - {FetchExitCode.OK}


def test_last_words_stay_below_the_kubelets_limit(tmp_path: Path) -> None:
    from finetune_serving.last_words import leave_last_words

    target = tmp_path / "termination-log"
    target.touch()

    leave_last_words("ä" * 5000, target)

    assert len(target.read_bytes()) < 4096


def test_keys_out_of_files_are_signed_with_as_without_their_last_newline(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    httpserver.expect_request("/models/m/manifest.json").respond_with_data(b"whole")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", httpserver.url_for("/"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret\n")

    assert S3Folder("models", "m").read_small("manifest.json") == b"whole"
    assert "Credential=reader/" in httpserver.log[0][0].headers["Authorization"]


def test_an_access_key_that_no_header_can_carry_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader-one\nreader-two")

    with pytest.raises(AccessDenied, match=r"AWS_ACCESS_KEY_ID .* holds a line break") as caught:
        S3Folder("models", "m").read_small("manifest.json")

    assert "reader-one" not in str(caught.value)
