"""The knowledge base and the Weaviate source against the real server. Every test has a collection of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import weaviate
from weaviate.classes.config import DataType, Property
from weaviate.classes.init import Auth
from weaviate.classes.query import Filter

from finetune_contract.artifacts import Document
from finetune_contract.run_spec import SecretKeyRef, SourceSpec, VectorsSpec, WeaviateSource, WeaviateSpec
from finetune_trainer.dataset.knowledge_base.changes import SourceRead
from finetune_trainer.dataset.knowledge_base.schema import from_properties
from finetune_trainer.dataset.knowledge_base.sentence_model import SentenceVectors
from finetune_trainer.dataset.knowledge_base.weaviate import WeaviateKnowledgeBase
from finetune_trainer.dataset.sources import open_source
from finetune_trainer.errors import KnowledgeBaseRejected, KnowledgeBaseUnavailable, SourceRejected
from tests.finetune_trainer.training.tiny_model import context_for, save_tiny_model, spec_for
from tests.together.breakable_connection import BreakableConnection

pytestmark = pytest.mark.together

COMPLETE = {"site": SourceRead(complete=True)}
FIRST = datetime(2025, 3, 30, 0, 0, 0, tzinfo=UTC)
"""In the night in which Europe changes its clocks."""


@pytest.fixture
def collection(parts: dict[str, str]) -> Iterator[str]:
    name = f"Posts{uuid.uuid4().hex[:12]}"
    yield name
    with client(parts) as connected:
        connected.collections.delete(name)


def client(parts: dict[str, str]) -> weaviate.WeaviateClient:
    host, port = grpc_address(parts)
    return weaviate.connect_to_custom(
        http_host=host,
        http_port=rest_port(parts),
        http_secure=False,
        grpc_host=host,
        grpc_port=port,
        grpc_secure=False,
        auth_credentials=Auth.api_key(parts["WEAVIATE_API_KEY"]),
        skip_init_checks=True,
    )


def grpc_address(parts: dict[str, str]) -> tuple[str, int]:
    host, _, port = parts["WEAVIATE_GRPC"].partition(":")
    return host, int(port)


def rest_port(parts: dict[str, str]) -> int:
    return int(parts["WEAVIATE_URL"].rpartition(":")[2])


def knowledge_base(
    parts: dict[str, str],
    collection: str,
    vectors: VectorsSpec | None = None,
    vectoriser: SentenceVectors | None = None,
    **address: Any,
) -> WeaviateKnowledgeBase:
    spec = WeaviateSpec.model_validate(
        {
            "url": parts["WEAVIATE_URL"],
            "grpcPort": grpc_address(parts)[1],
            "collection": collection,
            "apiKeySecretRef": {"name": "weaviate", "key": "api-key"},
            "vectors": vectors,
            **address,
        }
    )
    return WeaviateKnowledgeBase(spec, {"WEAVIATE_API_KEY": parts["WEAVIATE_API_KEY"]}, vectoriser)


def post(number: int, **changes: object) -> Document:
    """Two posts a second, with ids, addresses and authors that begin alike."""
    return Document(
        source="site",
        post_id=f"https://site.example/?p={number}",
        post_title=f"Post {number}",
        post_excerpt="",
        post_content=f"What stands in post {number}: " + "some words of it, and more. " * 20,
        post_date=(FIRST + timedelta(seconds=number // 2)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        post_author=f"Ada {number}",
        post_categories=["Data"] if number % 2 else ["Data Structure"],
        post_tags=[],
        post_url=f"https://site.example/post-{number}/",
    ).model_copy(update=changes)


def in_order(documents: list[Document]) -> list[Document]:
    return sorted(documents, key=lambda document: (document.post_date, document.post_id))


def test_two_thousand_posts_imported_twice_are_two_thousand_objects(parts, collection):
    documents = [post(number) for number in range(2000)]
    base = knowledge_base(parts, collection)
    base.check()

    first = base.synchronise(documents, COMPLETE)
    second = base.synchronise(documents, COMPLETE)

    assert (len(first.writes), len(second.writes), len(second.deletes)) == (2000, 0, 0)
    assert base.snapshot(["site"]) == in_order(documents)
    with client(parts) as connected:
        assert connected.collections.use(collection).aggregate.over_all(total_count=True).total_count == 2000


def test_filters_hit_exactly_one_of_many_look_alikes(parts, collection):
    base = knowledge_base(parts, collection)
    base.check()
    base.synchronise([post(number) for number in range(500)], COMPLETE)

    with client(parts) as connected:
        posts = connected.collections.use(collection)

        def found(filters: Any) -> list[str]:
            return [
                str(entry.properties["postTitle"])
                for entry in posts.query.fetch_objects(filters=filters, limit=500).objects
            ]

        for number in (2, 26, 264):
            wanted = post(number)
            assert found(Filter.by_property("postId").equal(wanted.post_id)) == [wanted.post_title]
            assert found(Filter.by_property("postUrl").equal(wanted.post_url)) == [wanted.post_title]
            assert found(Filter.by_property("postAuthor").equal(wanted.post_author)) == [wanted.post_title]
        assert len(found(Filter.by_property("postCategories").contains_any(["Data"]))) == 250


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 1), (10, 100), (249, 250), (0, 3600)])
def test_a_range_of_dates_is_what_python_finds(parts, collection, start, end):
    documents = [post(number) for number in range(500)]
    base = knowledge_base(parts, collection)
    base.check()
    base.synchronise(documents, COMPLETE)
    lower, upper = FIRST + timedelta(seconds=start), FIRST + timedelta(seconds=end)

    with client(parts) as connected:
        date = Filter.by_property("postDate")
        found = connected.collections.use(collection).query.fetch_objects(
            filters=date.greater_or_equal(lower) & date.less_than(upper), limit=1000
        )

    expected = {
        document.post_id
        for document in documents
        if lower <= datetime.fromisoformat(document.post_date) < upper
    }
    assert {entry.properties["postId"] for entry in found.objects} == expected


def test_texts_of_every_kind_come_back_as_they_went(parts, collection):
    documents = [
        post(1, post_content='Quotes " and \\ and\ttabs,\n\nlines, ümläuts, 日本語, 🦉 and ```code```.'),
        post(2, post_content="long " * 200_000),
        post(3, post_author="", post_categories=[], post_date="1970-01-01T00:00:00Z"),
        post(4, post_categories=["Research & Development", "Data, big"], post_tags=["Ünïcode", "a, b"]),
    ]
    base = knowledge_base(parts, collection)
    base.check()

    base.synchronise(documents, COMPLETE)

    assert base.snapshot(["site"]) == in_order(documents)
    assert base.synchronise(documents, COMPLETE).writes == ()


@pytest.fixture
def connections(parts: dict[str, str]) -> Iterator[tuple[BreakableConnection, BreakableConnection]]:
    """To REST and to gRPC."""
    host, port = grpc_address(parts)
    pair = BreakableConnection(host, rest_port(parts)), BreakableConnection(host, port)
    yield pair
    for connection in pair:
        connection.close()


@pytest.mark.parametrize("sent_bytes", [60_000, 300_000])
def test_a_server_that_goes_down_midway_is_told_and_a_rerun_completes(
    parts, collection, connections, sent_bytes, monkeypatch
):
    monkeypatch.setattr("weaviate.retry.time.sleep", lambda seconds: None)
    rest, grpc = connections
    address = {"url": f"http://127.0.0.1:{rest.port}", "grpcPort": grpc.port}
    documents = [post(number) for number in range(1000)]
    base = knowledge_base(parts, collection, **address)
    base.check()
    grpc.cut_after(sent_bytes)

    with pytest.raises(KnowledgeBaseUnavailable) as caught:
        base.synchronise(documents, COMPLETE)
    grpc.mend()
    kept = len(base.snapshot(["site"]))
    again = base.synchronise(documents, COMPLETE)

    assert f"spec.dataset.knowledgeBase.weaviate.url: http://127.0.0.1:{rest.port} stopped answering" in str(
        caught.value
    )
    assert 0 < kept < 1000
    assert len(again.writes) == 1000 - kept
    assert base.snapshot(["site"]) == in_order(documents)


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], SentenceVectors]:
    folder = save_tiny_model(tmp_path_factory.mktemp("sentence") / "model")
    return lambda work: SentenceVectors(context_for(work, spec_for(folder)), folder.as_uri())


def test_vectors_of_a_sentence_model_stand_beside_bm25(parts, collection, sentence_model, tmp_path):
    model = sentence_model(tmp_path)
    documents = [post(number, post_excerpt="Short." if number else "") for number in range(30)]
    base = knowledge_base(parts, collection, VectorsSpec(sentence_model="hf://owner/small"), model)
    base.check()

    base.synchronise(documents, COMPLETE)
    base.check()

    assert base.synchronise(documents, COMPLETE).writes == ()
    assert base.snapshot(["site"]) == in_order(documents)
    with client(parts) as connected:
        posts = connected.collections.use(collection)
        near = posts.query.near_vector(model.encode(["Post 17"])[0], target_vector="title", limit=1)
        assert near.objects[0].properties["postTitle"] == "Post 17"
        words = posts.query.bm25("17", query_properties=["postTitle"], limit=1)
        assert words.objects[0].properties["postTitle"] == "Post 17"
        kept = {
            entry.properties["postTitle"]: set(entry.vector) for entry in posts.iterator(include_vector=True)
        }
        assert kept["Post 0"] == {"title", "content"}
        assert kept["Post 1"] == {"title", "excerpt", "content"}


def test_a_collection_with_other_vectors_is_another_schema(parts, collection, sentence_model, tmp_path):
    base = knowledge_base(parts, collection)
    base.check()
    base.synchronise([post(1)], COMPLETE)
    with_vectors = VectorsSpec(sentence_model="hf://owner/small")

    with pytest.raises(KnowledgeBaseRejected, match=r"another schema \(its vectors are"):
        knowledge_base(parts, collection, with_vectors, sentence_model(tmp_path)).check()

    assert base.snapshot(["site"]) == [post(1)]


def test_a_module_that_is_not_enabled_is_named(parts, collection):
    with pytest.raises(
        KnowledgeBaseRejected, match=r"vectors.module: .* has no module text2vec-transformers"
    ):
        knowledge_base(parts, collection, VectorsSpec(module="text2vec-transformers")).check()

    with client(parts) as connected:
        assert not connected.collections.exists(collection)


def source_spec(parts: dict[str, str], collection: str, **properties: str) -> SourceSpec:
    return SourceSpec(
        name="articles",
        weaviate=WeaviateSource.model_validate(
            {
                "url": parts["WEAVIATE_URL"],
                "grpcPort": grpc_address(parts)[1],
                "collection": collection,
                "apiKeySecretRef": SecretKeyRef(name="reader", key="api-key"),
                "properties": properties,
            }
        ),
    )


def test_a_collection_of_others_is_read_with_a_key_that_may_only_read(parts, collection):
    with client(parts) as connected:
        articles = connected.collections.create(
            collection,
            properties=[
                Property(name="headline", data_type=DataType.TEXT),
                Property(name="body", data_type=DataType.TEXT),
                Property(name="published", data_type=DataType.DATE),
                Property(name="topics", data_type=DataType.TEXT),
                Property(name="link", data_type=DataType.TEXT),
            ],
        )
        for number in range(150):
            articles.data.insert(
                {
                    "headline": f"Article {number} & more",
                    "body": f"<p>Text of {number}.</p>" if number % 2 else f"Text of *{number}*.",
                    "published": FIRST + timedelta(days=number),
                    "topics": "Data, Data Structure",
                    "link": f"https://other.example/{number}",
                }
            )
    names = {
        "id": "link", "title": "headline", "excerpt": "", "content": "body", "date": "published",
        "author": "", "categories": "topics", "tags": "", "url": "link",
    }  # fmt: skip
    source = open_source(
        source_spec(parts, collection, **names),
        {"WEAVIATE_API_KEY_ARTICLES": parts["WEAVIATE_READER_API_KEY"]},
        credentials_required=True,
    )

    source.check()
    documents = source.read(lambda *_, **__: None).documents

    assert {document.url for document in documents} == {
        f"https://other.example/{number}" for number in range(150)
    }
    assert {(document.categories, document.is_markdown) for document in documents} == {
        (("Data", "Data Structure"), False),
        (("Data", "Data Structure"), True),
    }
    assert min(document.date for document in documents) == "2025-03-30T00:00:00Z"
    with pytest.raises(
        SourceRejected, match=r"properties.id: .* has no property postId; it has body, headline"
    ):
        open_source(
            source_spec(parts, collection),
            {"WEAVIATE_API_KEY_ARTICLES": parts["WEAVIATE_READER_API_KEY"]},
            credentials_required=True,
        ).check()


def test_the_nine_properties_are_read_back_as_the_documents_that_they_were(parts, collection):
    documents = [post(number) for number in range(20)]
    base = knowledge_base(parts, collection)
    base.check()
    base.synchronise(documents, COMPLETE)

    harvest = open_source(
        source_spec(parts, collection),
        {"WEAVIATE_API_KEY_ARTICLES": parts["WEAVIATE_READER_API_KEY"]},
        credentials_required=True,
    ).read(lambda *_, **__: None)

    assert {(entry.post_id, entry.date, entry.author, entry.categories) for entry in harvest.documents} == {
        (entry.post_id, entry.post_date, entry.post_author, tuple(entry.post_categories))
        for entry in documents
    }
    with client(parts) as connected:
        kept = [
            from_properties(entry.properties) for entry in connected.collections.use(collection).iterator()
        ]
    assert len(kept) == 20
