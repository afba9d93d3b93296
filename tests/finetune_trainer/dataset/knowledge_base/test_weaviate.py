"""The knowledge base with the real client against a Weaviate in memory: what is written, what fails, what is told.

A real server is asked in tests/together/test_knowledge_base.py.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import (
    SecretKeyRef,
    SourceSpec,
    VectorsSpec,
    WeaviateSource,
    WeaviateSpec,
)
from finetune_trainer.dataset.knowledge_base.changes import SourceRead, object_id
from finetune_trainer.dataset.knowledge_base.schema import to_properties
from finetune_trainer.dataset.knowledge_base.weaviate import WeaviateKnowledgeBase
from finetune_trainer.errors import DataRejected, InvalidRun, KnowledgeBaseRejected, KnowledgeBaseUnavailable
from tests.finetune_trainer.dataset.knowledge_base.fake_weaviate import FakeWeaviate

COLLECTION = "WordPressPost"
COMPLETE = {"site": SourceRead(complete=True)}
SENTENCE_MODEL = VectorsSpec(sentence_model="hf://owner/small")


def posts(count: int, source: str = "site") -> list[Document]:
    return [
        Document(
            source=source,
            post_id=f"?p={number:03d}",
            post_title=f"Post {number}",
            post_excerpt="Short." if number % 2 else "",
            post_content=f"All of post {number}.",
            post_date="2025-01-01T00:00:00Z",
            post_author="Ada",
            post_categories=["Blogs"],
            post_tags=[],
            post_url=f"http://site/{number}/",
        )
        for number in range(count)
    ]


def knowledge_base(
    server: FakeWeaviate, vectors: VectorsSpec | None = None, vectoriser: FakeVectors | None = None
) -> WeaviateKnowledgeBase:
    spec = WeaviateSpec(url=server.url, grpc_port=server.grpc_port, vectors=vectors)
    base = WeaviateKnowledgeBase(spec, {}, vectoriser)
    base.check()
    return base


class FakeVectors:
    """A vectoriser that remembers what it was asked."""

    def __init__(self, digest: str = "aaaa") -> None:
        self.digest = digest
        self.asked: list[str] = []

    def identity(self) -> str:
        return self.digest

    def vectors(self, documents: list[Document]) -> list[dict[str, list[float]]]:
        self.asked += [document.post_id for document in documents]
        return [{"title": [1.0, 0.0], "content": [0.0, 1.0]} for _ in documents]


def test_a_second_run_writes_nothing(server):
    base = knowledge_base(server)

    first = base.synchronise(posts(120), COMPLETE)
    batches = list(server.batches)
    second = base.synchronise(posts(120), COMPLETE)

    assert len(first.writes) == 120
    assert batches == server.batches == [50, 50, 20]
    assert second.writes == second.deletes == ()
    assert base.snapshot(["site"]) == posts(120)


def test_only_what_changed_is_written_and_only_what_is_gone_is_deleted(server):
    base = knowledge_base(server)
    base.synchronise(posts(60), COMPLETE)
    edited = posts(60)[5].model_copy(update={"post_content": "New."})
    wanted = [*posts(60)[:5], edited, *posts(60)[6:59]]

    changes = base.synchronise(wanted, COMPLETE)

    assert server.batches == [50, 10, 1]
    assert (changes.writes, len(changes.deletes)) == ((edited,), 1)
    assert base.snapshot(["site"]) == wanted


def test_what_others_wrote_is_left_alone(server):
    base = knowledge_base(server)
    base.synchronise(posts(3, source="other"), {"other": SourceRead(complete=True)})
    stranger = "00000000-0000-4000-8000-000000000000"
    server.add(COLLECTION, stranger, {"postTitle": "Not ours"})

    base.synchronise(posts(2), COMPLETE)

    assert stranger in server.objects[COLLECTION]
    assert base.snapshot(["other"]) == posts(3, source="other")
    assert base.snapshot(["site"]) == posts(2)


def test_a_great_loss_changes_nothing_even_when_there_is_something_to_write(server):
    base = knowledge_base(server)
    base.synchronise(posts(10), COMPLETE)
    edited = posts(1)[0].model_copy(update={"post_content": "New."})

    with pytest.raises(DataRejected, match="nothing was changed"):
        base.synchronise([edited], COMPLETE)

    assert base.snapshot(["site"]) == posts(10)


def test_progress_is_told_batch_by_batch(server):
    heard: list[tuple[int, int]] = []

    knowledge_base(server).synchronise(posts(60), COMPLETE, lambda step, total: heard.append((step, total)))

    assert heard == [(50, 60), (60, 60)]


def refusing(titles: set[str], times: int) -> Callable[[dict[str, object]], str]:
    """Refuses objects so many times, each."""
    left = dict.fromkeys(titles, times)

    def refuse(properties: dict[str, object]) -> str:
        title = str(properties["postTitle"])
        left[title] = left.get(title, 0) - 1
        return f"no space for {title}" if left[title] >= 0 else ""

    return refuse


@pytest.mark.parametrize("count", [3, 1])
def test_an_object_that_fails_once_is_tried_again(server, count):
    base = knowledge_base(server)
    server.refuse = refusing({"Post 0"}, times=1)

    base.synchronise(posts(count), COMPLETE)

    assert server.batches == [count, 1]
    assert base.snapshot(["site"]) == posts(count)


def test_an_object_that_fails_twice_fails_the_run_and_is_named(server):
    base = knowledge_base(server)
    server.refuse = refusing({"Post 1"}, times=2)

    with pytest.raises(KnowledgeBaseUnavailable) as caught:
        base.synchronise(posts(3), COMPLETE)

    assert "did not store 1 of 3 objects, tried twice (no space for Post 1)" in str(caught.value)
    assert str(caught.value).endswith("Not stored: ?p=001")


def test_many_failures_are_a_number_five_messages_and_ten_ids(server):
    base = knowledge_base(server)
    server.refuse = refusing({f"Post {number}" for number in range(60)}, times=2)

    with pytest.raises(KnowledgeBaseUnavailable) as caught:
        base.synchronise(posts(60), COMPLETE)

    message = str(caught.value)
    assert "did not store 60 of 60 objects" in message
    assert "?p=009 and 50 more" in message


def test_after_a_failure_the_next_run_writes_the_rest_alone(server):
    base = knowledge_base(server)
    server.refuse = refusing({"Post 1"}, times=2)
    with pytest.raises(KnowledgeBaseUnavailable):
        base.synchronise(posts(3), COMPLETE)

    changes = base.synchronise(posts(3), COMPLETE)

    assert [entry.post_id for entry in changes.writes] == ["?p=001"]
    assert base.snapshot(["site"]) == posts(3)


def test_nothing_is_deleted_when_a_write_failed(server):
    base = knowledge_base(server)
    base.synchronise(posts(10), COMPLETE)
    server.refuse = refusing({"New"}, times=9)
    new = posts(11)[10].model_copy(update={"post_title": "New"})

    with pytest.raises(KnowledgeBaseUnavailable):
        base.synchronise([*posts(10)[1:], new], COMPLETE)

    assert base.snapshot(["site"]) == posts(10)


def test_objects_that_were_taken_and_not_kept_are_found_out(server):
    base = knowledge_base(server)
    server.forget = lambda properties: properties["postTitle"] == "Post 1"

    with pytest.raises(KnowledgeBaseUnavailable, match="holds 2 of our documents after the write and 3"):
        base.synchronise(posts(3), COMPLETE)


def test_a_server_that_goes_down_midway_is_told_and_a_rerun_completes(server, httpserver, monkeypatch):
    monkeypatch.setattr("weaviate.retry.time.sleep", lambda seconds: None)
    base = knowledge_base(server)
    server.before_batch = lambda: len(server.batches) == 1 and server.stop()

    with pytest.raises(KnowledgeBaseUnavailable, match=r"weaviate.url: .* (stopped answering|failed)"):
        base.synchronise(posts(120), COMPLETE)
    kept = len(server.objects[COLLECTION])
    again = server.restarted(httpserver)
    changes = knowledge_base(again).synchronise(posts(120), COMPLETE)

    assert kept == 50
    assert len(changes.writes) == 70
    assert knowledge_base(again).snapshot(["site"]) == posts(120)
    again.stop()


def test_a_new_collection_has_the_nine_and_no_vector_by_a_module(server):
    knowledge_base(server)

    schema = server.schemas[COLLECTION]
    assert [entry["name"] for entry in schema["properties"]] == list(to_properties(posts(1)[0]))
    assert {vector: list(entry["vectorizer"]) for vector, entry in schema["vectorConfig"].items()} == {
        "default": ["none"]
    }


def test_a_collection_of_others_is_refused_with_its_differences_and_kept(server):
    server.add_collection(COLLECTION, postId="text", title="text")

    with pytest.raises(
        KnowledgeBaseRejected, match=r"another schema \(postTitle is missing.*title is not one"
    ):
        knowledge_base(server)

    assert [entry["name"] for entry in server.schemas[COLLECTION]["properties"]] == ["postId", "title"]


def test_vectors_are_made_for_what_is_written_alone(server):
    vectoriser = FakeVectors()
    base = knowledge_base(server, SENTENCE_MODEL, vectoriser)
    base.synchronise(posts(3), COMPLETE)
    edited = posts(3)[1].model_copy(update={"post_content": "New."})

    base.synchronise([posts(3)[0], edited, posts(3)[2]], COMPLETE)

    assert sorted(vectoriser.asked) == ["?p=000", "?p=001", "?p=001", "?p=002"]
    assert server.vectors[str(object_id("site", "?p=001"))] == {"title": [1.0, 0.0], "content": [0.0, 1.0]}
    assert set(server.schemas[COLLECTION]["vectorConfig"]) == {"title", "excerpt", "content"}


def test_vectors_of_another_model_are_another_schema(server):
    knowledge_base(server, SENTENCE_MODEL, FakeVectors("aaaa"))

    with pytest.raises(KnowledgeBaseRejected, match="its vectors are of sentence model aaaa, not bbbb"):
        knowledge_base(server, SENTENCE_MODEL, FakeVectors("bbbb"))


def test_a_collection_without_vectors_does_not_get_them(server):
    knowledge_base(server)

    with pytest.raises(
        KnowledgeBaseRejected, match="its vectors are default by none instead of content by none"
    ):
        knowledge_base(server, SENTENCE_MODEL, FakeVectors())


def test_a_collection_with_vectors_is_not_written_without_them(server):
    knowledge_base(server, SENTENCE_MODEL, FakeVectors())

    with pytest.raises(
        KnowledgeBaseRejected, match=r"it has vectors \(content by none.*and the spec has none"
    ):
        knowledge_base(server)


def test_a_module_that_the_server_lacks_is_named_with_those_it_has(server):
    server.modules = {"text2vec-ollama": {}, "backup-s3": {}}

    with pytest.raises(
        KnowledgeBaseRejected, match=r"vectors.module: .* no module text2vec-openai.*text2vec-ollama"
    ):
        knowledge_base(server, VectorsSpec(module="text2vec-openai"))

    assert COLLECTION not in server.schemas


def test_a_module_gets_its_settings_and_its_properties(server):
    server.modules = {"text2vec-openai": {}}
    vectors = VectorsSpec(module="text2vec-openai", module_settings={"model": "small", "dimensions": "256"})

    knowledge_base(server, vectors)

    content = server.schemas[COLLECTION]["vectorConfig"]["content"]["vectorizer"]["text2vec-openai"]
    assert content["properties"] == ["postAuthor", "postCategories", "postContent", "postTags", "postTitle"]
    assert (content["model"], content["dimensions"]) == ("small", 256)
    knowledge_base(server, vectors)
    with pytest.raises(KnowledgeBaseRejected, match="vector title: model is small instead of large"):
        knowledge_base(server, VectorsSpec(module="text2vec-openai", module_settings={"model": "large"}))


def test_a_module_that_does_not_reach_its_model_is_suspected(server):
    server.modules = {"text2vec-ollama": {}}
    base = knowledge_base(server, VectorsSpec(module="text2vec-ollama"))
    server.refuse = refusing({"Post 0"}, times=2)

    with pytest.raises(KnowledgeBaseUnavailable, match="does the server reach the model of text2vec-ollama"):
        base.synchronise(posts(1), COMPLETE)


def test_a_run_that_reads_the_collection_that_it_writes_is_refused():
    base = WeaviateKnowledgeBase(WeaviateSpec(url="http://weaviate:8080"), {})

    def source(url: str, collection: str) -> SourceSpec:
        return SourceSpec(name="old", weaviate=WeaviateSource(url=url, collection=collection))

    base.refuse_as_source(
        [source("http://other:8080", COLLECTION), source("http://weaviate:8080", "Article")]
    )
    with pytest.raises(
        InvalidRun, match=r"sources\[old\].weaviate.collection: WordPressPost is the knowledge base"
    ):
        base.refuse_as_source([source("http://weaviate:8080/", COLLECTION)])


def test_a_secret_without_its_key_is_refused_before_connecting():
    spec = WeaviateSpec(
        url="http://127.0.0.1:1", api_key_secret_ref=SecretKeyRef(name="weaviate", key="api-key")
    )

    with pytest.raises(
        KnowledgeBaseRejected, match=r"apiKeySecretRef: the Secret weaviate has no value under api-key"
    ):
        WeaviateKnowledgeBase(spec, {}).check()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://weaviate:top-secret", "is no address"),
        ("http://weaviate:0", "has no host or port"),
        ("https://proxy.example/weaviate", "has a path"),
    ],
)
def test_an_address_that_cannot_be_is_refused_before_connecting_and_not_shown(url, words):
    with pytest.raises(KnowledgeBaseRejected, match=rf"weaviate.url: {words}.*; write it as") as caught:
        WeaviateKnowledgeBase(WeaviateSpec(url=url), {}).check()

    assert "top-secret" not in str(caught.value)


def test_a_server_that_is_down_is_unavailable_and_named(unused_port):
    spec = WeaviateSpec(url=f"http://127.0.0.1:{unused_port}")

    with pytest.raises(
        KnowledgeBaseUnavailable, match=rf"weaviate.url: http://127.0.0.1:{unused_port} does not answer"
    ):
        WeaviateKnowledgeBase(spec, {}).check()


def test_a_refused_key_is_told_without_the_key(httpserver):
    httpserver.expect_request("/v1/meta").respond_with_json(
        {"error": [{"message": "unauthorized"}]}, status=401
    )
    spec = WeaviateSpec(url=httpserver.url_for("").rstrip("/"))

    with pytest.raises(KnowledgeBaseRejected, match="refuses the key") as caught:
        WeaviateKnowledgeBase(spec, {"WEAVIATE_API_KEY": "top-secret"}).check()

    assert "top-secret" not in str(caught.value)


def test_a_wrong_grpc_port_is_named(httpserver, unused_port, monkeypatch):
    monkeypatch.setattr("finetune_trainer.dataset.knowledge_base.connection.CONNECT_SECONDS", 0.2)
    httpserver.expect_request("/v1/meta").respond_with_json({"version": "1.35.2"})
    spec = WeaviateSpec(url=httpserver.url_for("").rstrip("/"), grpc_port=unused_port)

    with pytest.raises(
        KnowledgeBaseUnavailable, match=rf"grpcPort: nothing speaks gRPC at \w+:{unused_port};"
    ):
        WeaviateKnowledgeBase(spec, {}).check()


def test_one_port_for_rest_and_grpc_is_refused():
    spec = WeaviateSpec(url="http://127.0.0.1:8080", grpc_port=8080)

    with pytest.raises(KnowledgeBaseRejected, match=r"grpcPort: 8080 is the REST port"):
        WeaviateKnowledgeBase(spec, {}).check()


@pytest.mark.parametrize("key", ["top-secret\ntop-secret", "top-secret-ä"])
def test_a_key_that_no_header_can_carry_is_refused_before_connecting(key):
    spec = WeaviateSpec(
        url="http://127.0.0.1:1", api_key_secret_ref=SecretKeyRef(name="weaviate", key="api-key")
    )

    with pytest.raises(KnowledgeBaseRejected, match=r"apiKeySecretRef: the key holds a line") as caught:
        WeaviateKnowledgeBase(spec, {"WEAVIATE_API_KEY": key}).check()

    assert "top-secret" not in str(caught.value)


@pytest.mark.parametrize("answer", [{"data": []}, [], {"version": 7}])
def test_a_server_with_other_json_is_told_from_weaviate(httpserver, answer):
    httpserver.expect_request("/v1/meta").respond_with_json(answer)
    spec = WeaviateSpec(url=httpserver.url_for("").rstrip("/"))

    with pytest.raises(KnowledgeBaseRejected, match=r"weaviate.url: .* answers, and not as Weaviate does"):
        WeaviateKnowledgeBase(spec, {}).check()


def test_a_server_that_lets_a_connection_hang_is_unavailable(monkeypatch):
    def hang(*_, **__):
        raise httpx.ConnectTimeout("no route")

    monkeypatch.setattr("weaviate.connect_to_custom", hang)

    with pytest.raises(
        KnowledgeBaseUnavailable, match=r"weaviate.url: .* does not answer \(ConnectTimeout\)"
    ):
        WeaviateKnowledgeBase(WeaviateSpec(url="http://weaviate:8080"), {}).check()
