from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from finetune_contract.artifact_layout import base_model_folder
from finetune_contract.run_spec import FineTuneRunSpec
from finetune_trainer.artifact_files import read_manifest
from finetune_trainer.errors import BaseModelRejected, Preempted, SourceUnavailable, StoreUnavailable
from finetune_trainer.stage_context import StageContext
from finetune_trainer.training.base_model import fetch, resolve
from finetune_trainer.training.shared_copy import RECORD_NAME
from tests.finetune_trainer.training.fake_hub import COMMIT, REPOSITORY, FakeHub
from tests.finetune_trainer.training.tiny_model import context_for, spec_for

WANTED = {"config.json", "model.safetensors", "tokenizer.json"}
KEY = base_model_folder("google", "gemma-2-2b", COMMIT)


@pytest.fixture
def hub(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    return FakeHub(httpserver)


def context_with(
    hub: FakeHub,
    folder: Path,
    uri: str = f"hf://{REPOSITORY}@main",
    token: str = "",
    cache: Path | None = None,
) -> StageContext:
    spec = FineTuneRunSpec.model_validate({**spec_for(folder).to_wire(), "baseModel": {"uri": uri}})
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache or folder / "cache")}
    if token:
        environment["HF_TOKEN"] = token
    return dataclasses.replace(context_for(folder, spec), environment=environment)


def stored(context: StageContext) -> set[str]:
    return {key.rpartition("/")[2] for key in context.store.list(f"{KEY}/")}


def test_a_model_is_pinned_to_its_commit_and_copied_into_the_store_once(tmp_path: Path, hub: FakeHub):
    context = context_with(hub, tmp_path)

    base = resolve(context)
    again = resolve(context)

    assert base.uri == again.uri == f"hf://{REPOSITORY}@{COMMIT}"
    assert base.digest == again.digest
    assert base.licence == "gemma"
    assert sorted(hub.downloads) == sorted(WANTED)
    assert stored(context) == {*WANTED, "manifest.json"}
    folder = fetch(context)
    assert {path.name for path in folder.iterdir() if path.name != ".fetched"} == WANTED
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_weights_that_transformers_leaves_alone_are_not_downloaded(tmp_path: Path, hub: FakeHub):
    shard, index = (
        "model-00001-of-00001.safetensors",
        b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}',
    )
    hub.files["consolidated.safetensors"] = b"weights of another program"
    hub.files["model.safetensors.index.json"] = index
    hub.files[shard] = hub.files.pop("model.safetensors")

    folder = fetch(context_with(hub, tmp_path))

    assert {path.name for path in folder.glob("*.safetensors*")} == {shard, "model.safetensors.index.json"}
    assert "consolidated.safetensors" not in hub.downloads
    assert len(hub.downloads) == len(set(hub.downloads))


def test_the_manifest_tells_commit_licence_and_checksums(tmp_path: Path, hub: FakeHub):
    context = context_with(hub, tmp_path)
    resolve(context)

    manifest = read_manifest(context.store, KEY)

    assert manifest is not None
    assert manifest.facts == {"uri": f"hf://{REPOSITORY}@{COMMIT}", "licence": "gemma"}
    assert {entry.path: entry.sha256 for entry in manifest.files} == {
        name: hashlib.sha256(hub.files[name]).hexdigest() for name in WANTED
    }


def test_without_a_revision_it_is_the_main_branch(tmp_path: Path, hub: FakeHub):
    assert resolve(context_with(hub, tmp_path, f"hf://{REPOSITORY}")).uri.endswith(COMMIT)
    assert hub.looked_up == ["main"]


def test_later_stages_do_not_ask_hugging_face_for_a_pinned_model(tmp_path: Path, hub: FakeHub):
    context = context_with(hub, tmp_path, f"hf://{REPOSITORY}@{COMMIT}")
    resolve(context)
    hub.refusals["/"] = Response(status=500)

    assert fetch(context).is_dir()


def test_a_server_that_is_not_hugging_face_is_named_with_the_variable_to_correct(
    tmp_path: Path, hub: FakeHub
):
    hub.refusals["/api"] = Response('{"status": "ok"}', content_type="application/json")

    with pytest.raises(BaseModelRejected, match=rf"{hub.url} does not answer as .*; correct HF_ENDPOINT"):
        resolve(context_with(hub, tmp_path))


def test_the_token_comes_from_the_environment_and_never_from_this_machine(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_machine")
    resolve(context_with(hub, tmp_path / "with", token="hf_good"))
    resolve(context_with(hub, tmp_path / "without"))

    assert hub.tokens == ["hf_good", ""]


def test_a_connection_that_breaks_is_taken_up_in_the_middle_of_the_file(tmp_path: Path, hub: FakeHub):
    hub.break_after["model.safetensors"] = [3000, 1500]

    folder = fetch(context_with(hub, tmp_path))

    assert hub.ranges == ["bytes=3000-", "bytes=4500-"]
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_comes_damaged_is_fetched_anew(
    tmp_path: Path, hub: FakeHub, name: str, caplog: pytest.LogCaptureFixture
):
    hub.served[name] = [b"x" * len(hub.files[name])]

    folder = fetch(context_with(hub, tmp_path))

    assert (folder / name).read_bytes() == hub.files[name]
    assert f"downloaded file is damaged and fetched anew: file={name}" in caplog.text


def test_a_file_that_stays_damaged_is_no_model_and_nothing_of_it_is_stored(tmp_path: Path, hub: FakeHub):
    size = len(hub.files["model.safetensors"])
    hub.served["model.safetensors"] = [b"x" * size, b"x" * size]
    context = context_with(hub, tmp_path)

    with pytest.raises(SourceUnavailable, match=r"model.safetensors came twice with another content"):
        resolve(context)

    assert stored(context) == {"config.json", RECORD_NAME}


def test_an_attempt_goes_on_with_the_files_that_the_one_before_stored(tmp_path: Path, hub: FakeHub):
    """The second attempt has an empty disk: a new pod."""
    hub.refusals[f"/{REPOSITORY}/resolve/{COMMIT}/tokenizer.json"] = Response(status=404)
    with pytest.raises(BaseModelRejected, match="is gone"):
        resolve(context_with(hub, tmp_path, cache=tmp_path / "first-disk"))
    hub.refusals.clear()
    hub.downloads.clear()

    resolve(context_with(hub, tmp_path, cache=tmp_path / "second-disk"))

    assert hub.downloads == ["tokenizer.json"]


def test_a_download_that_is_told_to_stop_keeps_what_it_has(tmp_path: Path, hub: FakeHub):
    context = context_with(hub, tmp_path)
    answers = iter([False, True])

    with pytest.raises(Preempted, match="the next attempt takes the files that are there"):
        resolve(dataclasses.replace(context, stop_requested=lambda: next(answers)))
    resolve(context)

    assert sorted(hub.downloads) == sorted(WANTED)


def test_two_runs_of_one_machine_download_a_model_once(tmp_path: Path, hub: FakeHub):
    """Each with a store of its own: what they share is the cache."""
    contexts = [context_with(hub, tmp_path / name, cache=tmp_path / "cache") for name in ("a", "b")]
    threads = [threading.Thread(target=resolve, args=(context,)) for context in contexts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(hub.downloads) == sorted(WANTED)
    assert all(stored(context) == {*WANTED, "manifest.json"} for context in contexts)


def test_a_cache_on_the_scratch_disk_does_not_hold_the_model_twice(tmp_path: Path, hub: FakeHub):
    context = context_with(hub, tmp_path, cache=tmp_path / "work" / "cache")

    resolve(context)

    left = [
        path for path in (tmp_path / "work").rglob("*") if path.is_file() and b"weights" in path.read_bytes()
    ]
    assert left == []


def test_a_store_that_falls_silent_midway_is_said_as_such_and_what_was_stored_is_kept(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
):
    context = context_with(hub, tmp_path)
    upload = context.store.upload

    def silent(key: str, path: Path) -> None:
        if key.endswith("tokenizer.json"):
            raise StoreUnavailable("no answer")
        upload(key, path)

    with monkeypatch.context() as patch:
        patch.setattr(context.store, "upload", silent)
        with pytest.raises(StoreUnavailable):
            resolve(context)
    hub.refusals[f"/{REPOSITORY}/resolve/{COMMIT}/model.safetensors"] = Response(status=500)

    assert resolve(context).licence == "gemma"


def test_a_disk_that_is_too_small_is_said_with_numbers_before_the_download(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "finetune_trainer.training.hugging_face.shutil.disk_usage",
        lambda _: type("Usage", (), {"free": 100})(),
    )

    with pytest.raises(
        BaseModelRejected, match=r"spec.baseModel.uri: model.safetensors .* GiB free; make room there"
    ):
        resolve(context_with(hub, tmp_path))


@pytest.mark.parametrize("name", ["owner/na--me", "owner/name.", "-o/name", "owner/..", "o/" + "n" * 97])
def test_what_can_be_no_name_of_a_model_is_refused_with_the_field(tmp_path: Path, hub: FakeHub, name: str):
    with pytest.raises(
        BaseModelRejected, match=r"^spec\.baseModel\.uri: hf://.* cannot be the name of a model"
    ):
        resolve(context_with(hub, tmp_path, uri=f"hf://{name}@main"))

    assert hub.looked_up == []


def test_a_model_of_pickles_is_refused_before_anything_is_downloaded(tmp_path: Path, hub: FakeHub):
    del hub.files["model.safetensors"]

    with pytest.raises(BaseModelRejected, match=r"holds pytorch_model.bin and no \*.safetensors; a pickle"):
        resolve(context_with(hub, tmp_path))

    assert hub.downloads == []


PAGE = f"https://huggingface.co/{REPOSITORY}"


@pytest.mark.parametrize(
    ("token", "words", "message"),
    [
        (
            "hf_other",
            "Access is restricted.",
            f"accept the licence of {REPOSITORY} at {PAGE} with the account of this token",
        ),
        (
            "",
            "Access is restricted.",
            f"accept the licence of {REPOSITORY} at {PAGE} and put a token of the same account into "
            "spec.baseModel.tokenSecretRef",
        ),
        (
            "hf_other",
            "Your request to access model google/gemma-2-2b is awaiting a review from the repo authors.",
            "its owners have not yet let the account of this token in",
        ),
    ],
)
def test_a_licence_that_is_not_accepted_is_said_with_the_page_and_the_account(
    tmp_path: Path, hub: FakeHub, token: str, words: str, message: str
):
    hub.readers, hub.gate_words = {"hf_good"}, words

    with pytest.raises(BaseModelRejected) as caught:
        resolve(context_with(hub, tmp_path, token=token))

    assert str(caught.value).startswith(f"spec.baseModel.uri: hf://{REPOSITORY}@{COMMIT}: ")
    assert message in str(caught.value)
    assert "hf_other" not in str(caught.value)


def test_an_account_that_has_accepted_the_licence_gets_the_model(tmp_path: Path, hub: FakeHub):
    hub.readers = {"hf_good"}

    assert resolve(context_with(hub, tmp_path, token="hf_good")).licence == "gemma"


@pytest.mark.parametrize(
    ("uri", "token", "kind", "message"),
    [
        (f"hf://{REPOSITORY}@none", "", BaseModelRejected, f"no such revision; see {PAGE}/commits/main"),
        ("hf://google/none", "", BaseModelRejected, "no such model; check the name; a private model needs"),
        ("hf://google/none", "hf_good", BaseModelRejected, "check the name, and that the token may read it"),
        (
            f"hf://{REPOSITORY}",
            "hf_expired",
            BaseModelRejected,
            r"refuses the token \(401\); correct spec.baseModel.tokenSecretRef",
        ),
    ],
)
def test_what_hugging_face_does_not_know_is_said_with_its_remedy(
    tmp_path: Path, hub: FakeHub, uri: str, token: str, kind: type[Exception], message: str
):
    with pytest.raises(kind, match=f"spec.baseModel.uri: hf://.*{message}") as caught:
        resolve(context_with(hub, tmp_path, uri, token))

    assert "hf_" not in str(caught.value)


@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        (Response(status=503), SourceUnavailable, "answered 503; it is tried again"),
        (Response(status=429), SourceUnavailable, "answered 429; it is tried again"),
        (Response(status=403), BaseModelRejected, r"refuses the token \(403\)"),
        (
            Response(status=403, headers={"X-Error-Message": "Access to this resource is disabled."}),
            BaseModelRejected,
            "Hugging Face has closed this model",
        ),
    ],
)
def test_what_hugging_face_refuses_is_said_with_its_remedy(
    tmp_path: Path, hub: FakeHub, refusal: Response, kind: type[Exception], message: str
):
    hub.refusals["/api/models/"] = refusal

    with pytest.raises(kind, match=message):
        resolve(context_with(hub, tmp_path))


def test_a_hub_that_does_not_answer_is_tried_again_and_the_closed_cluster_has_its_way(
    tmp_path: Path, hub: FakeHub
):
    hub.server.stop()

    with pytest.raises(
        SourceUnavailable, match=r"does not answer \(ConnectError\).* put the model into S3 and write s3://"
    ):
        resolve(context_with(hub, tmp_path))
    hub.server.start()


def test_a_hub_that_breaks_off_between_two_files_is_said_by_its_cause(tmp_path: Path, hub: FakeHub):
    hub.refusals[f"/{REPOSITORY}/resolve/{COMMIT}/model.safetensors"] = Response(status=502)

    with pytest.raises(SourceUnavailable, match="answered 502; it is tried again"):
        resolve(context_with(hub, tmp_path))


def test_the_offline_switch_is_named(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog):
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(BaseModelRejected, match="HF_HUB_OFFLINE is set"):
        resolve(context_with(hub, tmp_path))


def test_the_newline_at_the_end_of_a_token_from_a_file_is_not_sent(tmp_path: Path, hub: FakeHub):
    resolve(context_with(hub, tmp_path, token="hf_good\n"))

    assert hub.tokens == ["hf_good"]


def test_a_token_that_no_header_can_carry_is_refused_before_hugging_face_is_asked(
    tmp_path: Path, hub: FakeHub
):
    with pytest.raises(
        BaseModelRejected, match=r"baseModel.tokenSecretRef: the token holds a line"
    ) as caught:
        resolve(context_with(hub, tmp_path, token="hf_good\nhf_other"))

    assert "hf_good" not in str(caught.value)
    assert hub.looked_up == []
